"""A decision carried out: the router chooses, the expert answers."""

from zooter_hf.ensemble.comparison import Compared
from zooter_hf.ensemble.ensemble import ZooterEnsemble
from zooter_hf.ensemble.reply import EnsembleError, Reply
from zooter_hf.ensemble.settings import EnsembleSettings
from zooter_hf.ensemble.streaming import AsyncReplyStream, ReplyStream


__all__ = [
    "AsyncReplyStream",
    "Compared",
    "EnsembleError",
    "EnsembleSettings",
    "Reply",
    "ReplyStream",
    "ZooterEnsemble",
]
