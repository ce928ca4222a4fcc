"""From the teacher's rewards to the router's targets."""

from zooter_hf.distillation.targets import soft_targets


__all__ = ["soft_targets"]
