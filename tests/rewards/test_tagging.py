"""Clusters as tags."""

import numpy as np
import pytest

from zooter_hf.rewards import ClusterTagger


def blobs(seed=0):
    generator = np.random.default_rng(seed)
    centres = np.eye(3)
    return np.concatenate([centres[i] + 0.05 * generator.standard_normal((20, 3)) for i in range(3)])


def test_clusters_are_found_whatever_the_length_of_the_embeddings():
    embeddings = blobs() * np.linspace(0.5, 20, 60)[:, None]
    tags = [tag for (tag,) in ClusterTagger(3)(embeddings)]
    assert [len(set(tags[start : start + 20])) for start in (0, 20, 40)] == [1, 1, 1]
    assert len(set(tags)) == 3


def test_clusters_within_subsets():
    subsets = ["x"] * 40 + [None] * 20
    tags = [tag for (tag,) in ClusterTagger(2, per_subset=True)(blobs(), subsets)]
    assert all(tag.startswith("x/cluster-") for tag in tags[:40]) and len(set(tags[:40])) == 2
    assert all(tag.startswith("none/") for tag in tags[40:])
    with pytest.raises(ValueError, match="subset of every query"):
        ClusterTagger(2, per_subset=True)(blobs())


def test_never_more_clusters_than_queries():
    assert len(ClusterTagger(5)(np.ones((3, 2)))) == 3
    with pytest.raises(ValueError, match=r"must have the shape \(queries, hidden_size\)"):
        ClusterTagger(5)(np.ones((0, 2)))
    with pytest.raises(ValueError, match="must be positive"):
        ClusterTagger(0)
