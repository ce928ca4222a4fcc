"""Something that says what a query is about: a tagging LLM, clusters of query embeddings."""

from zooter_hf.rewards.taggers.base import Tagger
from zooter_hf.rewards.taggers.embedding import EmbeddingTagger
from zooter_hf.rewards.taggers.instag import InsTagger


__all__ = ["EmbeddingTagger", "InsTagger", "Tagger"]
