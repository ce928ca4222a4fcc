"""From the teacher's rewards to a router: targets, training, and the whole run."""

from zooter_hf.distillation.targets import hard_labels, soft_targets, standardize


__all__ = ["hard_labels", "soft_targets", "standardize"]
