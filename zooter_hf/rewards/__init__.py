"""What the teacher says: reward tables, their checks and statistics, and tags."""

from zooter_hf.rewards.rows import RowProblem
from zooter_hf.rewards.scores import mean_known, regret, routed_rewards
from zooter_hf.rewards.summary import TableSummary
from zooter_hf.rewards.table import RewardTable
from zooter_hf.rewards.tagging import ClusterTagger


__all__ = [
    "ClusterTagger",
    "RewardTable",
    "RowProblem",
    "TableSummary",
    "mean_known",
    "regret",
    "routed_rewards",
]
