"""Sets of queries to collect rewards on: read, decontaminated, sampled."""

from zooter_hf.rewards.query_sets.decontamination import Contamination, decontaminate
from zooter_hf.rewards.query_sets.items import QueryItem
from zooter_hf.rewards.query_sets.loading import load_queries
from zooter_hf.rewards.query_sets.sampling import sample_per_tag


__all__ = ["Contamination", "QueryItem", "decontaminate", "load_queries", "sample_per_tag"]
