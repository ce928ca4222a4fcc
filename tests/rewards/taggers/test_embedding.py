"""Clusters of query embeddings as tags."""

import json

import pytest

from tests.conftest import QUERIES
from zooter_hf.rewards import ClusterTagger
from zooter_hf.rewards.taggers import EmbeddingTagger
from zooter_hf.routing import predict


@pytest.fixture
def encoder_folder(make_router, tokenizer, tmp_path):
    make_router().encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_queries_are_tagged_by_their_embedding(encoder_folder, make_router):
    pytest.importorskip("sklearn")
    queries = [*QUERIES, QUERIES[0], [{"role": "user", "content": QUERIES[1]}]]
    with EmbeddingTagger(encoder_folder, clusters=3, seed=5, batch_size=2, device="cpu") as tagger:
        tags = tagger.tag(queries)
    expected = ClusterTagger(3, seed=5)(predict(make_router(), queries).embeddings.numpy())
    assert tags == expected
    assert tags[5] == tags[0] and tags[6] == tags[1]  # the same text, as a chat too
    assert len({tag for (tag,) in tags}) == 3
    assert tagger.needs_all_queries and tagger._router is None


def test_settings_and_errors(encoder_folder):
    tagger = EmbeddingTagger(encoder_folder, clusters=4, prefix="c")
    assert tagger._router is None
    assert json.loads(json.dumps(tagger.settings)) == tagger.settings
    assert tagger.settings["clusters"] == 4 and tagger.settings["prefix"] == "c"
    assert tagger.tag([]) == [] and tagger._router is None
    with pytest.raises(ValueError, match="`clusters` must be positive"):
        EmbeddingTagger(encoder_folder, clusters=0)
    with pytest.raises(ValueError, match="`batch_size` must be positive"):
        EmbeddingTagger(encoder_folder, batch_size=0)
    with pytest.raises(OSError, match="no encoder folder"):
        EmbeddingTagger(str(encoder_folder / "none")).load()
