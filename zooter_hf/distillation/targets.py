"""Targets of distillation: softmax of rewards, and tag-based label enhancement (section 3 of arXiv 2311.08692)."""

from collections.abc import Sequence
from typing import Literal

import torch


def soft_targets(
    rewards: torch.Tensor,
    tags: Sequence[Sequence[str]] | None = None,
    *,
    tau: float = 1.0,
    beta: float = 0.3,
    average: Literal["probabilities", "rewards"] = "probabilities",
) -> torch.Tensor:
    r"""Makes the target distribution of every query.

    With `p_i = softmax(r_i / tau)`, and for every tag the mean of `p_i` over the queries that carry it, the target is
    `beta p_i + (1 - beta) mean of the tags of i` (section 3.3 of the paper); a query without tags keeps `p_i`. With
    `average="rewards"` it is the rewards that are averaged and mixed, and the softmax comes last.

    Args:
        rewards: Shape `(queries, experts)`. NaN where a reward is missing: such an expert gets the target 0 and
            counts in no mean.
        tags: The tags of every query. Without any there is no enhancement.
        tau: Temperature of the softmax.
        beta: Weight of the query's own rewards; 1 for no enhancement, 0 for the tags alone.
        average: Whether probabilities are averaged, as in the paper, or rewards.

    Returns:
        `torch.Tensor` of shape `(queries, experts)`: Rows that sum to 1, or to 0 where no reward is known.

    Raises:
        ValueError: If a setting is out of range or there is not one list of tags per query.
    """
    if rewards.ndim != 2:
        raise ValueError(f"`rewards` must have the shape (queries, experts), got {tuple(rewards.shape)}.")
    if not tau > 0:
        raise ValueError(f"`tau` must be positive, got {tau}.")
    if not 0 <= beta <= 1:
        raise ValueError(f"`beta` must lie between 0 and 1, got {beta}.")
    if average not in ("probabilities", "rewards"):
        raise ValueError(f"`average` must be 'probabilities' or 'rewards', got {average!r}.")
    if tags is not None and len(tags) != len(rewards):
        raise ValueError(f"There are {len(rewards)} rows of rewards, but tags for {len(tags)} queries.")

    known = ~rewards.isnan()
    if average == "rewards":
        return _masked_softmax(_enhance(rewards, known, tags, beta) / tau, known)
    mixed = _enhance(_masked_softmax(rewards / tau, known), known, tags, beta)
    # Where rewards are missing, what the tags say of the other experts has to be brought back to a sum of 1.
    return mixed / mixed.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(mixed.dtype).tiny)


def _masked_softmax(scores: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    scores = scores.masked_fill(~known, -torch.inf)
    return torch.softmax(scores, dim=-1).masked_fill(~known, 0.0)  # a row of -inf would be nan


def _enhance(
    values: torch.Tensor, known: torch.Tensor, tags: Sequence[Sequence[str]] | None, beta: float
) -> torch.Tensor:
    """Mixes the values of every query with the means of its tags; 0 where a reward is not known."""
    values = values.masked_fill(~known, 0.0)
    if tags is None or beta == 1:
        return values
    pairs = [(query, tag) for query, of_query in enumerate(tags) for tag in dict.fromkeys(of_query)]
    if not pairs:
        return values
    number = {tag: index for index, tag in enumerate(dict.fromkeys(tag for _, tag in pairs))}
    query_index = torch.tensor([query for query, _ in pairs])
    tag_index = torch.tensor([number[tag] for _, tag in pairs])

    def mean_over(index: torch.Tensor, size: int, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        sums = values.new_zeros(size, values.shape[1]).index_add_(0, index, rows * weights)
        counts = values.new_zeros(size, values.shape[1]).index_add_(0, index, weights)
        return sums / counts.clamp(min=1)

    weights = known.to(values.dtype)
    tag_means = mean_over(tag_index, len(number), values[query_index], weights[query_index])
    ones = torch.ones_like(values[query_index])
    of_queries = mean_over(query_index, len(values), tag_means[tag_index], ones)
    tagged = torch.zeros(len(values), 1, dtype=torch.bool)
    tagged[query_index] = True
    return torch.where(tagged, beta * values + (1 - beta) * of_queries, values).masked_fill(~known, 0.0)
