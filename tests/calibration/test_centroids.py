"""What a router remembers of its training queries."""

import pytest
import torch

from zooter_hf import ZooterForRouting, ZooterRoutingPipeline, store_centroids


@pytest.fixture
def clustered(make_world):
    """Two tags of two clusters each, all far apart."""
    world = make_world(queries=200)
    torch.manual_seed(0)
    centres = torch.eye(world.router.config.hidden_size)[:4] * 5
    kinds = torch.arange(200) % 4
    world.embeddings = centres[kinds] + 0.05 * torch.randn(200, centres.shape[1])
    tags = [["x"] if kind < 2 else ["y"] for kind in kinds.tolist()]
    world.table = world.make_table(world.table.rewards, tags=tags)
    return world


def test_centroids_are_those_of_the_clusters(clustered, tmp_path):
    router = clustered.router
    limit = store_centroids(router, clustered.table, per_tag=2, embeddings=clustered.embeddings)
    assert [each["tags"] for each in router.config.centroids] == [["x"], ["x"], ["y"], ["y"]]
    assert [each["queries"] for each in router.config.centroids] == [50, 50, 50, 50]
    assert 0 < limit < 0.05
    distance, index = router.nearest_centroids(clustered.embeddings)
    assert (distance <= limit).float().mean() > 0.97
    assert [router.config.centroids[place]["tags"] for place in index.tolist()] == clustered.table.tags
    far, _ = router.nearest_centroids(torch.eye(router.config.hidden_size)[4:5])
    assert far.item() == pytest.approx(1, abs=0.05)
    router.save_pretrained(tmp_path / "router")
    loaded = ZooterForRouting.from_pretrained(tmp_path / "router")
    torch.testing.assert_close(loaded.nearest_centroids(clustered.embeddings)[0], distance)
    assert "distance" in ZooterRoutingPipeline(model=loaded)("Why?", return_truncation=True)


def test_no_text_is_kept(clustered, tmp_path):
    store_centroids(clustered.router, clustered.table, embeddings=clustered.embeddings)
    clustered.router.save_pretrained(tmp_path / "router")
    for path in (tmp_path / "router").iterdir():
        assert b"What is the" not in path.read_bytes(), path.name


def test_they_can_be_replaced_and_need_no_tags(clustered):
    store_centroids(clustered.router, clustered.table, per_tag=2, embeddings=clustered.embeddings)
    bare = clustered.table.with_tags([[]] * 200)
    store_centroids(clustered.router, bare, per_tag=3, embeddings=clustered.embeddings)
    assert [each["tags"] for each in clustered.router.config.centroids] == [[], [], []]
    assert clustered.router.centroids.shape == (3, clustered.router.config.hidden_size)


@pytest.mark.parametrize("settings", [{"per_tag": 0}, {"quantile": 1.0}, {"folds": 1}])
def test_mistakes(clustered, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        store_centroids(clustered.router, clustered.table, embeddings=clustered.embeddings, **settings)
