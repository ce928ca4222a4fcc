"""Sets of experts that hold a good one with a probability that can be promised (RACER, arXiv 2603.06616).

A router's probabilities order the experts, and say little about how far down one has to go to meet a good one. Split
conformal calibration measures it, on queries whose rewards are known and that the router was not trained on. What is
promised needs nothing of the router; it needs queries to come that are like those of the calibration (exchangeable).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zooter_hf.routing.binomial import log_binomial_cdf
from zooter_hf.routing.nonconformity import (
    KINDS,
    NOISE,
    first_good,
    good_experts,
    nonconformity,
    tie_noise,
    with_null,
)


__all__ = [
    "KINDS",
    "NOISE",
    "SetThreshold",
    "augmented_sets",
    "average_threshold",
    "calibrate_groups",
    "calibrate_threshold",
    "expert_sets",
    "first_good",
    "good_experts",
    "nonconformity",
    "queries_needed",
    "safe_threshold",
    "tie_noise",
    "with_null",
]


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
