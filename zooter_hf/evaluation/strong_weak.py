"""Routing between a strong and a weak model, by the measures of RouteLLM (arXiv 2406.18665, section 3)."""

from dataclasses import dataclass

import numpy as np
import torch

from zooter_hf.evaluation.metrics import TOLERANCE


@dataclass(frozen=True)
class StrongWeakCurve:
    """What a router between two models gives for every share of calls of the strong one.

    Args:
        thresholds: Shape `(points,)`, descending: queries whose score is at least that high go to the strong model.
        shares: The share of the queries that do, ascending from 0 to 1.
        rewards: The mean reward then, from that of the weak model alone to that of the strong one.
    """

    thresholds: torch.Tensor
    shares: torch.Tensor
    rewards: torch.Tensor

    def thinned(self, points: int) -> "StrongWeakCurve":
        """Returns the curve with about so many of its points, evenly spread, both ends among them."""
        if len(self.shares) <= points:
            return self
        kept = torch.from_numpy(np.unique(np.linspace(0, len(self.shares) - 1, points).round().astype(int)))
        return StrongWeakCurve(self.thresholds[kept], self.shares[kept], self.rewards[kept])


def strong_weak_curve(
    scores: torch.Tensor, weak_rewards: torch.Tensor, strong_rewards: torch.Tensor
) -> StrongWeakCurve:
    """Sends more and more queries to the strong model, those of the highest scores first.

    Queries of equal scores go together; between two points the curve is a line, as if they went in random order. A
    router without any opinion is thus the random one.

    Args:
        scores: How much a router prefers the strong model, shape `(queries,)`.
        weak_rewards: Rewards of the weak model, of the same shape, NaN where missing.
        strong_rewards: Those of the strong one. Queries on which one of them is missing are left out.

    Raises:
        ValueError: If no query has the rewards of both.
    """
    known = ~(weak_rewards.isnan() | strong_rewards.isnan())
    if not known.any():
        raise ValueError("There is no query on which the rewards of both the strong and the weak model are known.")
    scores, weak, strong = scores[known].double(), weak_rewards[known].double(), strong_rewards[known].double()
    scores, order = scores.sort(descending=True, stable=True)
    last = torch.cat([scores[1:] < scores[:-1], torch.ones(1, dtype=torch.bool)])
    gained = (strong - weak)[order].cumsum(dim=0)[last] / len(weak)
    shares = torch.arange(1, len(weak) + 1, dtype=torch.float64)[last] / len(weak)
    return StrongWeakCurve(
        thresholds=torch.cat([scores.new_full((1,), torch.inf), scores[last]]),
        shares=torch.cat([shares.new_zeros(1), shares]),
        rewards=torch.cat([weak.mean().unsqueeze(0), weak.mean() + gained]),
    )


def performance_gap_recovered(rewards: np.ndarray) -> np.ndarray:
    """Computes PGR, `(r - r_weak) / (r_strong - r_weak)`: how much of the gap between the models a router closes.

    Args:
        rewards: Shape `(..., points)`, from the weak model alone, first, to the strong one alone, last.

    Returns:
        `numpy.ndarray` of the same shape: 0 first and 1 last; NaN where the strong model is no better.
    """
    rewards = np.asarray(rewards)
    gap = rewards[..., -1:] - rewards[..., :1]
    return np.divide(rewards - rewards[..., :1], gap, out=np.full(rewards.shape, np.nan), where=gap > TOLERANCE)


def average_performance_gap_recovered(shares: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Computes APGR, the mean of PGR over the shares of strong calls: 0.5 for a random router.

    RouteLLM takes the mean over ten shares; here it is the integral from 0 to 1, as in its code.

    Args:
        shares: Shape `(..., points)`, ascending from 0 to 1.
        rewards: Of the same shape.

    Returns:
        `numpy.ndarray` of shape `(...)`.
    """
    pgr, shares = performance_gap_recovered(rewards), np.asarray(shares)
    return (np.diff(shares, axis=-1) * (pgr[..., 1:] + pgr[..., :-1]) / 2).sum(axis=-1)


def call_performance_threshold(shares: np.ndarray, rewards: np.ndarray, recovered: float) -> np.ndarray:
    """Computes CPT, the smallest share of strong calls at which PGR reaches `recovered`.

    Args:
        shares: Shape `(..., points)`, ascending from 0 to 1.
        rewards: Of the same shape.
        recovered: The wanted PGR, above 0 and at most 1.

    Returns:
        `numpy.ndarray` of shape `(...)`: Interpolated between points; NaN where the strong model is no better.

    Raises:
        ValueError: If `recovered` is out of range.
    """
    if not 0 < recovered <= 1:
        raise ValueError(f"A share of the gap to recover lies above 0 and is at most 1, got {recovered}.")
    pgr, shares = performance_gap_recovered(rewards), np.asarray(shares)
    place = (pgr >= recovered - TOLERANCE).argmax(axis=-1)[..., None]  # 0 where all is NaN

    def around(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        before = np.take_along_axis(values, np.maximum(place - 1, 0), axis=-1)[..., 0]
        return before, np.take_along_axis(values, place, axis=-1)[..., 0]

    (share_before, share), (before, reached) = around(shares), around(pgr)
    step = reached - before
    part = np.divide(recovered - before, step, out=np.ones_like(step), where=step > 0)
    return np.where(np.isnan(reached) | (place[..., 0] == 0), np.nan, share_before + part * (share - share_before))
