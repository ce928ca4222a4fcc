"""From probabilities to a decision."""

from zooter_hf.routing.deciding import Routed, decide, query_key
from zooter_hf.routing.decision import Decision, Fallback, RankedExpert
from zooter_hf.routing.inference import Predictions, predict, predict_embedded
from zooter_hf.routing.policies import (
    ArgmaxPolicy,
    Choice,
    CostAwarePolicy,
    QueryFacts,
    RoutingPolicy,
    SetPolicy,
    ThresholdPolicy,
    make_policy,
)


__all__ = [
    "ArgmaxPolicy",
    "Choice",
    "CostAwarePolicy",
    "Decision",
    "Fallback",
    "Predictions",
    "QueryFacts",
    "RankedExpert",
    "Routed",
    "RoutingPolicy",
    "SetPolicy",
    "ThresholdPolicy",
    "decide",
    "make_policy",
    "predict",
    "predict_embedded",
    "query_key",
]
