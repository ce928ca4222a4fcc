"""Targets of distillation, made of rewards (section 3 of arXiv 2311.08692)."""

from collections.abc import Sequence
from typing import Literal

import torch

from zooter_hf.distillation.enhancement import enhance


def soft_targets(
    rewards: torch.Tensor,
    tags: Sequence[Sequence[str]] | None = None,
    *,
    tau: float = 1.0,
    beta: float = 0.3,
    average: Literal["probabilities", "rewards"] = "probabilities",
    leave_one_out: bool = False,
    shrinkage: float = 0.0,
    min_support: int = 1,
    neighbours: torch.Tensor | None = None,
    neighbour_weight: float = 0.5,
) -> torch.Tensor:
    r"""Makes the target distribution of every query.

    With `p_i = softmax(r_i / tau)`, and for every tag the mean of `p_i` over the queries that carry it, the target is
    `beta p_i + (1 - beta) mean of the tags of i` (section 3.3 of the paper); a query without tags keeps `p_i`. With
    `average="rewards"` it is the rewards that are averaged and mixed, and the softmax comes last. The defaults are
    the paper's.

    Args:
        rewards: Shape `(queries, experts)`. NaN where a reward is missing: such an expert gets the target 0 and
            counts in no mean.
        tags: The tags of every query. Without tags and neighbours there is no enhancement.
        tau: Temperature of the softmax.
        beta: Weight of the query's own rewards; 1 for no enhancement, 0 for the tags alone.
        average: Whether probabilities are averaged, as in the paper, or rewards.
        leave_one_out: Whether a query's own rewards are left out of the means of its tags.
        shrinkage: With how many queries' weight the mean of all queries enters the mean of a tag.
        min_support: Tags that fewer queries carry are passed over.
        neighbours: Indices of shape `(queries, neighbours)` of the queries most like each, -1 for none: beyond the
            paper, their mean joins that of the tags.
        neighbour_weight: Share of the neighbours' mean beside that of the tags.

    Returns:
        `torch.Tensor` of shape `(queries, experts)`: Rows that sum to 1, or to 0 where no reward is known.

    Raises:
        ValueError: If a setting is out of range or there is not one list of tags per query.
    """
    _check_rewards(rewards)
    if not tau > 0:
        raise ValueError(f"`tau` must be positive, got {tau}.")
    if average not in ("probabilities", "rewards"):
        raise ValueError(f"`average` must be 'probabilities' or 'rewards', got {average!r}.")
    settings = {
        "beta": beta, "leave_one_out": leave_one_out, "shrinkage": shrinkage, "min_support": min_support,
        "neighbours": neighbours, "neighbour_weight": neighbour_weight,
    }  # fmt: skip
    known = ~rewards.isnan()
    if average == "rewards":
        return _masked_softmax(enhance(rewards, tags, **settings) / tau, known)
    probabilities = _masked_softmax(rewards / tau, known).masked_fill(~known, torch.nan)
    mixed = enhance(probabilities, tags, **settings).masked_fill(~known, 0.0)
    # Where rewards are missing, what the tags say of the other experts has to be brought back to a sum of 1.
    return mixed / mixed.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(mixed.dtype).tiny)


def hard_labels(rewards: torch.Tensor) -> torch.Tensor:
    """Takes the best expert of every query as its label, the baseline of section 4 of the paper.

    Experts that share the highest reward share the label: the first of them would be an accident of their order, and
    where an answer is right or wrong most queries have several best experts.

    Args:
        rewards: Shape `(queries, experts)`, NaN where a reward is missing.

    Returns:
        `torch.Tensor` of shape `(queries, experts)`: Rows that sum to 1, or to 0 where no reward is known.
    """
    _check_rewards(rewards)
    best = (rewards == rewards.nan_to_num(nan=-torch.inf).amax(dim=1, keepdim=True)).to(rewards.dtype)
    return best / best.sum(dim=1, keepdim=True).clamp(min=1)


def standardize(rewards: torch.Tensor, reference: torch.Tensor | None = None) -> torch.Tensor:
    """Brings a teacher's rewards to mean 0 and standard deviation 1 over all queries and experts.

    Reward models have scales of their own; standardised, one `tau` means the same for all of them.

    Args:
        rewards: Shape `(queries, experts)`, NaN where a reward is missing.
        reference: The rewards that mean and deviation are taken of, where those are others.

    Returns:
        `torch.Tensor` of the shape of `rewards`; only centred if all of the reference are the same.
    """
    reference = rewards if reference is None else reference
    known = reference[~reference.isnan()]
    spread = known.std(correction=0)
    return (rewards - known.mean()) / (spread if spread > 0 else 1.0)


def _check_rewards(rewards: torch.Tensor):
    if rewards.ndim != 2:
        raise ValueError(f"`rewards` must have the shape (queries, experts), got {tuple(rewards.shape)}.")


def _masked_softmax(scores: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    scores = scores.masked_fill(~known, -torch.inf)
    return torch.softmax(scores, dim=-1).masked_fill(~known, 0.0)  # a row of -inf would be nan
