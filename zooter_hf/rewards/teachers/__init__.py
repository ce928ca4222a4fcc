"""Something that says what an answer is worth: reward models, comparisons, checks with a reference, any function."""

from zooter_hf.rewards.teachers.base import Scorable, Teacher
from zooter_hf.rewards.teachers.callable import CallableTeacher
from zooter_hf.rewards.teachers.combined import CombinedTeacher
from zooter_hf.rewards.teachers.pairwise import CallablePairwise, Comparison, PairwiseTeacher
from zooter_hf.rewards.teachers.pairwise_judge import PairwiseJudge
from zooter_hf.rewards.teachers.reward_model import RewardModel
from zooter_hf.rewards.teachers.verifier import Verifier


__all__ = [
    "CallablePairwise",
    "CallableTeacher",
    "CombinedTeacher",
    "Comparison",
    "PairwiseJudge",
    "PairwiseTeacher",
    "RewardModel",
    "Scorable",
    "Teacher",
    "Verifier",
]
