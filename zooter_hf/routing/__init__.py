"""From probabilities to a decision."""

from zooter_hf.routing.decision import Decision, RankedExpert


__all__ = ["Decision", "RankedExpert"]
