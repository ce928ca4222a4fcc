"""The labelling run: queries in, a reward table out; it can be stopped at any moment and loses nothing."""

from zooter_hf.rewards.labelling.engines import Engine, LocalEngine, RayEngine
from zooter_hf.rewards.labelling.run import Labelling, collect_rewards, label
from zooter_hf.rewards.labelling.summary import ExpertOutcome, LabellingSummary


__all__ = [
    "Engine",
    "ExpertOutcome",
    "Labelling",
    "LabellingSummary",
    "LocalEngine",
    "RayEngine",
    "collect_rewards",
    "label",
]
