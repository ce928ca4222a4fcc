"""From probabilities to a decision."""

from zooter_hf.routing.decision import Decision, RankedExpert
from zooter_hf.routing.inference import Predictions, predict


__all__ = ["Decision", "Predictions", "RankedExpert", "predict"]
