"""Sets of experts that hold a good one with a probability that can be promised (RACER, arXiv 2603.06616).

A router's probabilities order the experts, and say little about how far down one has to go to meet a good one. Split
conformal calibration measures it, on queries whose rewards are known and that the router was not trained on. What is
promised needs nothing of the router; it needs queries to come that are like those of the calibration (exchangeable).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zooter_hf.routing.binomial import log_binomial_cdf


KINDS = ("gap", "complement")
NOISE = 1e-6  # less than any difference between probabilities that means something
_ROUNDING = 1e-9  # 10 * (1 - 0.7) is a little more than 3


@dataclass(frozen=True)
class SetThreshold:
    """How far down a ranking a set of experts goes, and what was promised for it. See [`calibrate_threshold`].

    Args:
        threshold: The largest nonconformity of an expert in a set, the lambda of the paper.
        alpha: How often a set may hold no good expert.
        delta: How often the calibration itself may fail, `None` where the promise is one on average.
        kind: How nonconformity is measured; see [`nonconformity`].
        margin: What is good: experts within it of the best reward, `None` for those that are correct.
        correct_above: The reward above which an expert is correct.
        queries: On how many queries it was calibrated.
        misses: On how many of them the set holds no good expert.
    """

    threshold: float
    alpha: float
    delta: float | None
    kind: str
    margin: float | None
    correct_above: float
    queries: int
    misses: int


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

    The null expert, "no expert is good", is the last column, with the probability `1 - max_m p_m`. It makes sense of
    probabilities that an expert is good, each for itself, and little of a distribution over the experts: among nine
    equally good ones that leaves it 8/9.

    Args:
        probabilities: Shape `(queries, experts)`, between 0 and 1; rows need not sum to 1.
        kind: `"gap"`: how much less probable than the most probable one, the null expert among them, so that every set
            holds at least one. `"complement"`: `1 - p_m`, so that a set of a query may be empty.
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


def queries_needed(alpha: float, delta: float | None = None) -> int:
    """Computes the least number of calibration queries with which something can be promised.

    Args:
        alpha: How often a set may hold no good expert.
        delta: How often the calibration may fail; `None` for a promise on average.

    Raises:
        ValueError: If `alpha` or `delta` does not lie between 0 and 1.
    """
    _check_levels(alpha, delta)
    if delta is None:
        return max(1, math.ceil((1 - alpha) / alpha - _ROUNDING))
    return max(1, math.ceil(math.log(delta) / math.log1p(-alpha) - _ROUNDING))


def average_threshold(needed: torch.Tensor, alpha: float) -> float:
    """Finds the threshold of split conformal prediction: of n queries the k-th smallest, `k = ceil((n+1)(1-alpha))`.

    Args:
        needed: The threshold that every calibration query needs, of [`first_good`].
        alpha: How often a set may hold no good expert, on average over calibrations and queries to come.

    Raises:
        ValueError: If there are too few queries.
    """
    _check_enough(len(needed), alpha, None)
    rank = math.ceil((len(needed) + 1) * (1 - alpha) - _ROUNDING)
    return needed.sort().values[max(rank, 1) - 1].item()


def safe_threshold(needed: torch.Tensor, alpha: float, delta: float) -> float:
    """Finds the smallest threshold whose Clopper-Pearson bound on the risk is at most `alpha`.

    As sets only grow with the threshold, that bound need not be corrected for the search (Bates et al., 2021).

    Args:
        needed: The threshold that every calibration query needs, of [`first_good`].
        alpha: How often a set may hold no good expert of queries to come,
        delta: except in this share of all calibrations.

    Raises:
        ValueError: If there are too few queries.
    """
    queries = len(needed)
    _check_enough(queries, alpha, delta)
    # The bound at m misses is at most alpha exactly where so few misses are unlikely at a risk of alpha.
    allowed = int((log_binomial_cdf(queries, alpha) <= math.log(delta) + _ROUNDING).sum()) - 1
    return needed.sort().values[queries - allowed - 1].item()


def calibrate_threshold(
    probabilities: torch.Tensor,
    rewards: torch.Tensor,
    *,
    alpha: float,
    kind: str = "gap",
    margin: float | None = None,
    correct_above: float = 0.5,
    delta: float | None = None,
    noise: torch.Tensor | None = None,
) -> SetThreshold:
    """Finds how large sets must be to hold a good expert of all but `alpha` of the queries.

    Queries without any known reward are left out.

    Args:
        probabilities: Shape `(queries, experts)`, of queries that the router was not trained on.
        rewards: Of the same shape, NaN where a reward is missing.
        alpha: How often a set may hold no good expert.
        kind: `"gap"` or `"complement"`; see [`nonconformity`].
        margin: What is good; see [`good_experts`].
        correct_above: The same.
        delta: By default the promise is one on average over calibrations. With it, the risk is at most `alpha` in all
            but a share `delta` of the calibrations, for which sets are larger.
        noise: Of [`tie_noise`], from the same queries.

    Raises:
        ValueError: If a level does not lie between 0 and 1, there are too few queries, or shapes do not fit.
    """
    _check_levels(alpha, delta)
    if probabilities.shape != rewards.shape:
        raise ValueError(
            f"`probabilities` and `rewards` must have the same shape, got {tuple(probabilities.shape)} and "
            f"{tuple(rewards.shape)}."
        )
    needed = first_good(
        nonconformity(probabilities, kind, noise), with_null(good_experts(rewards, margin, correct_above))
    )
    needed = needed[~rewards.isnan().all(dim=1)]
    threshold = average_threshold(needed, alpha) if delta is None else safe_threshold(needed, alpha, delta)
    return SetThreshold(
        threshold=threshold,
        alpha=alpha,
        delta=delta,
        kind=kind,
        margin=margin,
        correct_above=correct_above,
        queries=len(needed),
        misses=int((needed > threshold).sum()),
    )


def calibrate_groups(
    probabilities: torch.Tensor,
    rewards: torch.Tensor,
    groups: Sequence[str],
    *,
    noise: torch.Tensor | None = None,
    **settings,
) -> dict[str, SetThreshold]:
    """Calibrates every group of queries by itself, so that the promise holds in each (Mondrian conformal prediction).

    A threshold for all queries keeps its promise on average over them, too rarely on hard groups and too often on easy
    ones. The group of a query to come must be known: its source, a tag, the expert that the router ranks first.

    Args:
        probabilities: Shape `(queries, experts)`.
        rewards: Of the same shape, NaN where a reward is missing.
        groups: The group of every query.
        noise: Of [`tie_noise`], from the same queries.
        **settings: Of [`calibrate_threshold`]: `alpha`, `kind`, `margin`, `correct_above`, `delta`.

    Raises:
        ValueError: As [`calibrate_threshold`] does; if a group has too few queries, with its name.
    """
    if len(groups) != len(probabilities):
        raise ValueError(f"`groups` must name the group of {len(probabilities)} queries, got {len(groups)}.")
    thresholds = {}
    for group in sorted(set(groups)):
        rows = torch.tensor([index for index, name in enumerate(groups) if name == group])
        try:
            thresholds[group] = calibrate_threshold(
                probabilities[rows], rewards[rows], noise=None if noise is None else noise[rows], **settings
            )
        except ValueError as error:
            raise ValueError(f"Group {group!r}: {error}") from error
    return thresholds


def augmented_sets(
    probabilities: torch.Tensor, threshold: float | torch.Tensor, kind: str = "gap", noise: torch.Tensor | None = None
) -> torch.Tensor:
    """Makes the sets that the promise is about, in which the null expert may be.

    Args:
        probabilities: Shape `(queries, experts)`.
        threshold: Of [`calibrate_threshold`]; one for all, or one for each query of shape `(queries,)`.
        kind: That of the calibration.
        noise: Of [`tie_noise`], with the seed of the calibration.

    Returns:
        `torch.Tensor` of booleans of shape `(queries, experts + 1)`, the null expert last.
    """
    if isinstance(threshold, torch.Tensor):
        threshold = threshold.double().reshape(-1, 1)
    return nonconformity(probabilities, kind, noise) <= threshold


def expert_sets(
    probabilities: torch.Tensor, threshold: float | torch.Tensor, kind: str = "gap", noise: torch.Tensor | None = None
) -> torch.Tensor:
    """Makes the sets of experts to ask; see [`augmented_sets`].

    Returns:
        `torch.Tensor` of booleans of shape `(queries, experts)`. A row without any expert is an abstention: none of
        them may be good.
    """
    return augmented_sets(probabilities, threshold, kind, noise)[:, :-1]


def _check_levels(alpha: float, delta: float | None):
    for name, level in (("alpha", alpha), ("delta", delta)):
        if level is not None and not 0 < level < 1:
            raise ValueError(f"`{name}` must lie between 0 and 1, got {level}.")


def _check_enough(queries: int, alpha: float, delta: float | None):
    needed = queries_needed(alpha, delta)
    if queries < needed:
        promise = f"alpha {alpha:g}" if delta is None else f"alpha {alpha:g} and delta {delta:g}"
        raise ValueError(
            f"{queries} calibration queries with known rewards are too few for {promise}: it takes at least {needed}. "
            "Give more, or promise less."
        )
