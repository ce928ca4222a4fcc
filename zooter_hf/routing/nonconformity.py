"""How far every expert is from being the choice for a query, and which would be a good one."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch


KINDS = ("gap", "complement", "gain")
NOISE = 1e-6  # less than any difference between probabilities that means something


def good_experts(rewards: torch.Tensor, margin: float | None = None, correct_above: float = 0.5) -> torch.Tensor:
    """Says which experts would be a good choice.

    Args:
        rewards: Shape `(queries, experts)`, NaN where a reward is missing: such an expert is never good.
        margin: How far below the best known reward of the query an expert may lie; 0 for the best ones alone. By
            default what counts is that the expert is correct, so that of some queries no expert is good.
        correct_above: The reward above which an expert is correct, where there is no `margin`.

    Returns:
        `torch.Tensor` of booleans, of the shape of the rewards.

    Raises:
        ValueError: If the rewards are no matrix, or the margin is negative.
    """
    if rewards.ndim != 2:
        raise ValueError(f"`rewards` must have the shape (queries, experts), got {tuple(rewards.shape)}.")
    if margin is None:
        return rewards > correct_above  # false where a reward is NaN
    if not margin >= 0:
        raise ValueError(f"`margin` must be 0 or more, got {margin}.")
    best = rewards.nan_to_num(-torch.inf).amax(dim=1, keepdim=True)
    return rewards >= best - margin


def with_null(good: torch.Tensor) -> torch.Tensor:
    """Appends the null expert: good exactly where no other is, `(queries, experts)` to `(queries, experts + 1)`."""
    return torch.cat([good, ~good.any(dim=1, keepdim=True)], dim=1)


def tie_noise(keys: Sequence[str], experts: int, seed: int = 0) -> torch.Tensor:
    """Draws what breaks ties between scores: the same for the same query, in every process.

    Args:
        keys: A text for each query, as a rule the query itself.
        experts: How many experts there are, without the null expert.
        seed: Which noise. It must be that of the calibration.

    Returns:
        `torch.Tensor` of shape `(queries, experts + 1)`, float64: uniform between 0 and 1e-6.
    """
    size = 4 * (experts + 1)
    drawn = b"".join(hashlib.shake_128(f"{seed}:{key}".encode("utf-8", "surrogatepass")).digest(size) for key in keys)
    numbers = np.frombuffer(drawn, dtype="<u4").astype(np.float64)
    return torch.from_numpy(numbers).view(len(keys), experts + 1) * (NOISE / 2**32)


def nonconformity(probabilities: torch.Tensor, kind: str = "gap", noise: torch.Tensor | None = None) -> torch.Tensor:
    """Measures how far every expert is from being the obvious choice; small is good.

    The null expert, "no expert is good", is the last column. In the kinds of the paper, `"gap"` and `"complement"`, it
    competes with the others, at the probability `1 - max_m p_m`. That makes sense of probabilities that an expert is
    good, each for itself, and little of a distribution over the experts: among nine equally good ones it has 8/9.

    Args:
        probabilities: Shape `(queries, experts)`, between 0 and 1; rows need not sum to 1.
        kind: `"gap"`: how much less probable than the most probable one, the null expert among them, so that every set
            holds at least one. `"complement"`: `1 - p_m`, so that a set of a query may be empty. `"gain"`, which is
            not of the paper: one minus the chance that an expert is good and none before it is, by the order of the
            probabilities, `p_m` times all `1 - p_j` of those before; a second expert then counts for little where the
            first is good. Its null expert is in every set: what is promised are sets with a good expert wherever one
            is good, which takes fewer calls than also to tell where none is.
        noise: Of [`tie_noise`]; added to the probabilities.

    Returns:
        `torch.Tensor` of shape `(queries, experts + 1)`, float64.

    Raises:
        ValueError: If there is no such kind, the probabilities are none, or shapes do not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {KINDS}, got {kind!r}.")
    if probabilities.ndim != 2 or probabilities.shape[1] == 0:
        raise ValueError(f"`probabilities` must have the shape (queries, experts), got {tuple(probabilities.shape)}.")
    if not bool(((probabilities >= -NOISE) & (probabilities <= 1 + NOISE)).all()):
        raise ValueError(
            "`probabilities` must be numbers between 0 and 1, without NaN: give those of the router after softmax or "
            "sigmoid, not its logits."
        )
    scores = probabilities.double()
    scores = torch.cat([scores, 1 - scores.amax(dim=1, keepdim=True)], dim=1)
    if noise is not None:
        if noise.shape != scores.shape:
            raise ValueError(
                f"`noise` must have the shape {tuple(scores.shape)}, with a column for the null expert, got "
                f"{tuple(noise.shape)}."
            )
        scores = scores + noise
    if kind == "gain":
        return 1.0 - torch.cat([_gains(scores[:, :-1]), torch.ones_like(scores[:, -1:])], dim=1)
    return (scores.amax(dim=1, keepdim=True) if kind == "gap" else 1.0) - scores


def first_good(distances: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """Finds how large the threshold must be for the set of every query to hold a good expert.

    Args:
        distances: Of [`nonconformity`].
        good: Booleans of the same shape, of [`with_null`].

    Returns:
        `torch.Tensor` of shape `(queries,)`: the least nonconformity of a good expert.
    """
    return distances.masked_fill(~good, torch.inf).amin(dim=1)


def _gains(scores: torch.Tensor) -> torch.Tensor:
    """Computes the chance that an expert is good and none that is more probable is, if they are so independently."""
    ordered, order = (scores / (1 + 4 * NOISE)).sort(dim=1, descending=True, stable=True)  # less than 1
    nobody_before = torch.cat([torch.ones_like(ordered[:, :1]), (1 - ordered[:, :-1]).cumprod(dim=1)], dim=1)
    return torch.zeros_like(scores).scatter(1, order, ordered * nobody_before)
