"""From probabilities to a decision."""

from zooter_hf.routing.deciding import Routed, decide
from zooter_hf.routing.decision import Decision, Fallback, RankedExpert
from zooter_hf.routing.inference import Predictions, predict
from zooter_hf.routing.policy import ArgmaxPolicy, Choice, RoutingPolicy, make_policy


__all__ = [
    "ArgmaxPolicy",
    "Choice",
    "Decision",
    "Fallback",
    "Predictions",
    "RankedExpert",
    "Routed",
    "RoutingPolicy",
    "decide",
    "make_policy",
    "predict",
]
