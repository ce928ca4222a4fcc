"""From the teacher's rewards to a router: targets, training, and the whole run."""

from zooter_hf.distillation.arguments import PAPER_ENCODER, PAPER_SETTINGS, DistillationArguments
from zooter_hf.distillation.cross_validation import cross_validate
from zooter_hf.distillation.new_expert import fit_expert
from zooter_hf.distillation.objectives import distillation_loss
from zooter_hf.distillation.predicted_rewards import fit_rewards
from zooter_hf.distillation.run import Distillation, distill
from zooter_hf.distillation.static import distill_static
from zooter_hf.distillation.targets import hard_labels, soft_targets, standardize
from zooter_hf.distillation.temperature import fit_tau
from zooter_hf.distillation.trainer import ZooterTrainer


__all__ = [
    "PAPER_ENCODER",
    "PAPER_SETTINGS",
    "Distillation",
    "DistillationArguments",
    "ZooterTrainer",
    "cross_validate",
    "distill",
    "distill_static",
    "distillation_loss",
    "fit_expert",
    "fit_rewards",
    "fit_tau",
    "hard_labels",
    "soft_targets",
    "standardize",
]
