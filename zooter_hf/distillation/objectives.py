"""What the router is asked to match: the distribution of the teacher, its favourite, or its rewards."""

from typing import Literal, get_args

import torch
from torch import nn

from zooter_hf.modeling import routing_loss


Objective = Literal["kl", "cross_entropy", "bce", "mse"]
OBJECTIVES = get_args(Objective)


def distillation_loss(
    logits: torch.Tensor, labels: torch.Tensor, expert_mask: torch.Tensor, objective: Objective = "kl"
) -> torch.Tensor:
    """Computes the loss of a batch.

    Args:
        logits: The router's scores, shape `(batch, experts)`.
        labels: Of `"kl"` and `"cross_entropy"` target distributions, of `"bce"` and `"mse"` rewards, of shape
            `(batch, experts)`.
        expert_mask: Shape `(batch, experts)`, False where a reward is not known.
        objective: `"kl"`, the paper's `KL(target || router)`; `"cross_entropy"` with the best expert, its baseline;
            or per-expert rewards predicted by binary cross-entropy (`"bce"`, for rewards in [0, 1]) or squared error.

    Returns:
        A scalar, the mean over the queries that take part; 0 if none does.
    """
    if objective in ("kl", "cross_entropy"):
        return routing_loss(logits, labels, expert_mask)
    criterion = nn.functional.binary_cross_entropy_with_logits if objective == "bce" else nn.functional.mse_loss
    known = expert_mask.bool()
    targets = labels.to(torch.float32).masked_fill(~known, 0.0)
    per_expert = criterion(logits.float(), targets, reduction="none").masked_fill(~known, 0.0)
    return per_expert.sum() / known.any(dim=-1).sum().clamp(min=1)
