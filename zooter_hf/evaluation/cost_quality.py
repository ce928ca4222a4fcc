"""What quality costs: a router's curve over the weight of costs, the hull of single models, and AIQ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from zooter_hf.evaluation.metrics import TOLERANCE
from zooter_hf.rewards.scores import routed_rewards


Numbers: TypeAlias = torch.Tensor | np.ndarray | Sequence[float]


@dataclass(frozen=True)
class CostSweep:
    """Which expert takes a query, as its cost counts more and more.

    At the weight w it is the expert of highest `quality - w * expected cost`. From one weight to the next that changes
    at most as often as there are cheaper experts, so that all of it is kept.

    Args:
        weights: Shape `(queries, steps)`: the weight from which on a step holds, in quality per US dollar, from 0
            upwards; infinite where a query has fewer steps.
        experts: Indices of the same shape.
    """

    weights: torch.Tensor
    experts: torch.Tensor

    def chosen(self, weights: torch.Tensor) -> torch.Tensor:
        """Returns the experts at some weights: shape `(weights,)` to indices of shape `(queries, weights)`."""
        weights = weights.to(self.weights).expand(len(self.weights), -1).contiguous()
        return self.experts.gather(1, torch.searchsorted(self.weights, weights, right=True) - 1)


@dataclass(frozen=True)
class CostQualityCurve:
    """What a router gives for every weight of costs.

    A point holds from its weight up to that of the next; the first is quality alone, the last always the cheapest.

    Args:
        weights: Shape `(points,)`, in quality per US dollar, ascending from 0.
        costs: Mean cost of a query in US dollars, of the same shape.
        rewards: Mean reward, of the same shape.
        shares: Shape `(points, experts)`: the share of the queries that every expert takes.
    """

    weights: torch.Tensor
    costs: torch.Tensor
    rewards: torch.Tensor
    shares: torch.Tensor

    def thinned(self, points: int) -> "CostQualityCurve":
        """Returns the curve with about so many points: both ends, those on its hull, and others evenly between."""
        if len(self.weights) <= points:
            return self
        even = np.linspace(0, len(self.weights) - 1, points).round().astype(int)
        kept = torch.from_numpy(np.union1d(even, convex_hull(self.costs, self.rewards)))
        return CostQualityCurve(self.weights[kept], self.costs[kept], self.rewards[kept], self.shares[kept])


def sweep_cost_weights(quality: torch.Tensor, expected_costs: torch.Tensor) -> CostSweep:
    """Finds every weight of costs at which the choice of a query changes. Ties go to the cheaper expert.

    Args:
        quality: Scores of shape `(queries, experts)`: predicted rewards or probabilities. NaN for an expert that must
            not be chosen; every query needs one that may be.
        expected_costs: US dollars as known before an answer, of the same shape, or `(experts,)` for all queries alike.
    """
    quality = quality.double()
    costs = expected_costs.double().expand_as(quality)
    quality, costs = quality.masked_fill(quality.isnan(), -torch.inf), costs.masked_fill(quality.isnan(), torch.inf)
    best = quality == quality.amax(dim=1, keepdim=True)
    current = costs.masked_fill(~best, torch.inf).argmin(dim=1, keepdim=True)
    weight = torch.zeros_like(costs[:, :1])
    weights, experts = [weight], [current]
    for _ in range(quality.shape[1] - 1):
        lost, saved = quality.gather(1, current) - quality, costs.gather(1, current) - costs
        at = torch.where((saved > 0) & saved.isfinite(), lost / saved, torch.inf)
        following, cheaper = at.min(dim=1, keepdim=True)
        if following.isinf().all():
            break
        weight = torch.maximum(weight, following)  # equal weights may be a rounding apart
        current = torch.where(following.isinf(), current, cheaper)
        weights.append(weight)
        experts.append(current)
    return CostSweep(torch.cat(weights, dim=1), torch.cat(experts, dim=1))


def cost_quality_curve(
    quality: torch.Tensor, expected_costs: torch.Tensor, rewards: torch.Tensor, costs: torch.Tensor
) -> CostQualityCurve:
    """Follows a router from quality alone to the lowest cost: every point there is, none left out.

    An expert is not chosen for a query on which its reward or its cost is missing: what it would have given or cost is
    not known. Queries on which no expert is known are left out.

    Args:
        quality: Scores of shape `(queries, experts)`: predicted rewards or probabilities; NaN for "not to be chosen".
        expected_costs: US dollars as known before an answer, of the same shape, or `(experts,)` for all queries alike.
        rewards: True rewards of the same shape, NaN where missing.
        costs: True costs in US dollars, likewise.
    """
    known = ~(rewards.isnan() | costs.isnan() | quality.isnan())
    rows = known.any(dim=1)
    expected_costs = expected_costs.expand_as(quality)[rows]
    rewards, costs = rewards[rows].double(), costs[rows].double()
    sweep = sweep_cost_weights(quality.masked_fill(~known, torch.nan)[rows], expected_costs)
    # What every step of every query changes, added up in the order of the weights.
    query, step = (sweep.weights[:, 1:].isfinite()).nonzero(as_tuple=True)
    weights, order = sweep.weights[query, step + 1].sort(stable=True)
    query, before, after = query[order], sweep.experts[query, step][order], sweep.experts[query, step + 1][order]
    last = torch.cat([weights[1:] > weights[:-1], torch.ones(min(1, len(weights)), dtype=torch.bool)])
    first = sweep.experts[:, 0]

    def follow(values: torch.Tensor) -> torch.Tensor:
        start = routed_rewards(values, first).sum().unsqueeze(0)
        changes = (values[query, after] - values[query, before]).cumsum(dim=0)[last]
        return torch.cat([start, start + changes]) / len(values)

    experts = range(rewards.shape[1])
    counts = [follow(torch.zeros_like(rewards).index_fill(1, torch.tensor(expert), 1.0)) for expert in experts]
    weights = torch.cat([weights.new_zeros(1), weights[last]])
    return CostQualityCurve(weights, follow(costs), follow(rewards), torch.stack(counts, dim=1))


def convex_hull(costs: Numbers, rewards: Numbers) -> np.ndarray:
    """Finds the non-decreasing convex hull of points, as RouterBench has it (arXiv 2403.12031, section 3).

    Tossing a coin between two routers gives any point on the line between theirs, so that a set of routers is worth
    the upper hull of their points; and one that costs more for less is of no use.

    Args:
        costs: Shape `(points,)`. Points with NaN are passed over.
        rewards: Of the same shape.

    Returns:
        `numpy.ndarray`: Indices of the corners, from the cheapest point to the best; costs and rewards ascend.
    """
    costs, rewards = np.asarray(costs, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    order = np.lexsort((-rewards, costs))
    order = order[~np.isnan(costs[order] + rewards[order])]
    earlier = np.maximum.accumulate(np.concatenate([[-np.inf], rewards[order]]))[:-1]
    hull: list[int] = []
    for point in order[rewards[order] > earlier].tolist():
        while len(hull) > 1:
            a, b = hull[-2:]
            if (rewards[b] - rewards[a]) * (costs[point] - costs[b]) > (rewards[point] - rewards[b]) * (
                costs[b] - costs[a]
            ):
                break
            hull.pop()  # it lies on or below the line from the one before it
        hull.append(point)
    return np.array(hull, dtype=np.int64)


def hull_rewards(costs: Numbers, rewards: Numbers, at: Numbers) -> np.ndarray:
    """Reads the non-decreasing convex hull of points at some costs.

    Of the points of single experts this is RouterBench's Zero router, which mixes them without reading the query.

    Args:
        costs: Shape `(points,)`.
        rewards: Of the same shape.
        at: Costs, of any shape.

    Returns:
        `numpy.ndarray` of the shape of `at`: Beyond the dearest corner its reward, below the cheapest one NaN.
    """
    corners = convex_hull(costs, rewards)
    return np.interp(at, np.asarray(costs)[corners], np.asarray(rewards)[corners], left=np.nan)


def aiq(costs: Numbers, rewards: Numbers, cost_range: tuple[float, float], floor: float = 0.0) -> float:
    """Computes RouterBench's AIQ: the mean height of the non-decreasing convex hull (arXiv 2403.12031, section 3).

    `AIQ = 1 / (c_max - c_min) * integral of the hull from c_min to c_max`. Figures compare only over the same range.
    Beyond its dearest corner a hull keeps its reward; below its cheapest one it is the line from the paper's null
    router, which answers nothing at no cost.

    Args:
        costs: Mean costs of a router's points, shape `(points,)`.
        rewards: Mean rewards, of the same shape.
        cost_range: c_min and c_max, the same for all that is compared. At a range of no width it is the height there.
        floor: What no answer is worth.

    Raises:
        ValueError: If the range is none.
    """
    low, high = cost_range
    if not 0 <= low <= high < np.inf:
        raise ValueError(f"`cost_range` is a lowest and a highest cost in US dollars, got {cost_range}.")
    corners = convex_hull(costs, rewards)
    costs, rewards = np.asarray(costs)[corners], np.asarray(rewards)[corners]
    if costs[0] > 0:
        costs, rewards = np.insert(costs, 0, 0.0), np.insert(rewards, 0, floor)
    places = np.concatenate([[low], costs[(costs > low) & (costs < high)], [high]])
    heights = np.interp(places, costs, rewards)
    if high == low:
        return float(heights[0])
    return float((np.diff(places) * (heights[1:] + heights[:-1]) / 2).sum() / (high - low))


def reward_within(costs: np.ndarray, rewards: np.ndarray, budget: "float | np.ndarray") -> np.ndarray:
    """Returns the highest reward of the points, `(..., points)`, that cost no more than a budget, `(...)`, or NaN."""
    allowed = costs <= np.asarray(budget)[..., None] * (1 + TOLERANCE)
    best = np.where(allowed, rewards, -np.inf).max(axis=-1)
    return np.where(np.isinf(best), np.nan, best)


def cost_to_reach(costs: np.ndarray, rewards: np.ndarray, reward: "float | np.ndarray") -> np.ndarray:
    """Returns the lowest cost of the points, `(..., points)`, that reach a reward, `(...)`; infinite if none does."""
    return np.where(rewards >= np.asarray(reward)[..., None] - TOLERANCE, costs, np.inf).min(axis=-1)
