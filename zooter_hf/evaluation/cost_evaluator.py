"""Compares methods of routing by what they give for their cost."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from zooter_hf.evaluation.bootstrap import bootstrap_means, percentile_intervals
from zooter_hf.evaluation.cost_inputs import CostInputs, check_cost_settings, gather_costs
from zooter_hf.evaluation.cost_quality import (
    aiq,
    convex_hull,
    cost_quality_curve,
    cost_to_reach,
    hull_rewards,
    reward_within,
    sweep_cost_weights,
)
from zooter_hf.evaluation.cost_report import (
    BudgetQuality,
    CostQualityReport,
    Estimate,
    ExpertPoint,
    MethodCosts,
    QualityCost,
    StrongWeakResult,
)
from zooter_hf.evaluation.strong_weak import (
    average_performance_gap_recovered,
    call_performance_threshold,
    strong_weak_curve,
)


RECOVERED = (0.5, 0.8)  # the parts of the gap that RouteLLM reports
_FORBIDDEN = -1e100  # a score for "not to be chosen" whose differences are numbers


def evaluate_costs(
    methods: Mapping[str, torch.Tensor],
    rewards: torch.Tensor,
    costs: torch.Tensor | None,
    expected_costs: torch.Tensor,
    expert_names: Sequence[str],
    *,
    strong: str | None = None,
    weak: str | None = None,
    qualities: Sequence[float] = (1.0, 0.95),
    budgets: Sequence[float] = (1.0, 0.5),
    cost_range: tuple[float, float] | None = None,
    points: int = 200,
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
    dataset: str | None = None,
) -> CostQualityReport:
    """Compares methods of routing by what they give for their cost.

    A method is what it says of quality. For every weight of costs a query goes to the expert of highest `quality -
    weight * expected cost`, and is worth and costs what is true of that expert.

    Args:
        methods: Scores by the name of a method, each of shape `(queries, experts)`: predicted rewards or
            probabilities. NaN for an expert that must not be chosen.
        rewards: True rewards of the same shape, NaN where missing. An expert is not chosen for a query on which its
            reward or its cost is missing.
        costs: True costs in US dollars, likewise.
        expected_costs: US dollars as known before an answer, of the same shape, or `(experts,)` for all queries alike.
        expert_names: The experts, in the order of the columns.
        strong: The strong model of a pair that the methods also route between, as RouteLLM does.
        weak: The weak one.
        qualities: Shares of the best single model's mean reward, whose cost is compared. (Where that is negative, 0.95
            is a twentieth of it less.)
        budgets: Shares of the best single model's cost at which quality is compared.
        cost_range: The costs that AIQ is taken over, in US dollars. By default those of the cheapest and of the
            dearest single model.
        points: About how many points of a curve are kept and resampled.
        confidence: Share of the resampled figures that an interval holds.
        samples: How many resamples there are.
        seed: Which ones.
        dataset: Name of the reward table.

    Raises:
        ValueError: If there are no costs, some are negative, an expected one is missing, shapes or names do not fit,
            or the strong model is no better than the weak one.

    Example:
    ```python
    >>> import torch
    >>> from zooter_hf import RewardTable
    >>> from zooter_hf.evaluation import evaluate_costs

    >>> table = RewardTable.from_rows(
    ...     [
    ...         {"query": "2 + 2 = ?", "rewards": {"a": 1, "b": 1}, "costs": {"a": 0.001, "b": 0.010}},
    ...         {"query": "Prove it.", "rewards": {"a": 0, "b": 1}, "costs": {"a": 0.001, "b": 0.020}},
    ...     ]
    ... )
    >>> scores = torch.tensor([[0.7, 0.8], [0.2, 0.6]])
    >>> expected = torch.tensor([0.001, 0.015])
    >>> report = evaluate_costs({"router": scores}, table.rewards, table.costs, expected, table.expert_names)
    >>> router = report.method("router")
    >>> router.rewards, router.quality(1.0).cost.value
    ((1.0, 1.0, 0.5), 0.7)

    ```
    """
    check_cost_settings(qualities, budgets, points, confidence, samples)
    inputs = gather_costs(methods, rewards, costs, expected_costs, expert_names, strong, weak)
    resampler = _Resampler(samples, seed, confidence)
    single_costs, single_rewards = resampler.means(inputs.costs, inputs.rewards)
    if cost_range is None:
        cost_range = (float(np.nanmin(single_costs[0])), float(np.nanmax(single_costs[0])))
    comparison = _Comparison(
        inputs=inputs,
        single_costs=single_costs,
        single_rewards=single_rewards,
        resampler=resampler,
        cost_range=cost_range,
        floor=min(0.0, float(np.nanmin(inputs.rewards.numpy()))),
        qualities=tuple(qualities),
        budgets=tuple(budgets),
        points=points,
    )
    corners = convex_hull(single_costs[0], single_rewards[0]).tolist()
    return CostQualityReport(
        dataset=dataset or "reward table",
        queries=len(inputs.rewards),
        experts=tuple(
            ExpertPoint(name, _number(cost), _number(reward), index in corners)
            for index, (name, cost, reward) in enumerate(
                zip(inputs.names, single_costs[0], single_rewards[0], strict=True)
            )
        ),
        best_single=inputs.names[comparison.best],
        cost_range=cost_range,
        mixture_aiq=resampler.estimate(comparison.mixture_aiq),
        methods=tuple(
            comparison.method(name, scores, inputs.expected_costs) for name, scores in inputs.methods.items()
        ),
        oracle=comparison.method("oracle", inputs.rewards, inputs.costs.nan_to_num(0.0)),
        strong=strong,
        weak=weak,
        percent=bool(((inputs.rewards >= 0) & (inputs.rewards <= 1) | inputs.rewards.isnan()).all()),
        confidence=confidence,
        samples=samples,
        seed=seed,
    )


@dataclass(frozen=True)
class _Resampler:
    """Means of columns as observed, first, and as resampled: the same queries every time, so that all is paired."""

    samples: int
    seed: int
    confidence: float

    def means(self, *values: torch.Tensor) -> list[np.ndarray]:
        """Averages tensors of shape `(queries, columns)`: arrays of shape `(1 + samples, columns)`."""
        together = torch.cat(values, dim=1)
        resampled = bootstrap_means(together, samples=self.samples, seed=self.seed)
        every = np.concatenate([together.nanmean(dim=0).numpy()[None], resampled])
        return np.split(every, np.cumsum([each.shape[1] for each in values])[:-1], axis=1)

    def estimate(self, figures: np.ndarray) -> Estimate:
        """Makes an estimate of a figure as observed and as resampled, shape `(1 + samples,)`."""
        with np.errstate(invalid="ignore"):  # between two that are not reached there is nothing
            low, high = percentile_intervals(figures[1:, None], self.confidence)
        return Estimate(_number(figures[0]), _number(low[0]), _number(high[0]))


@dataclass(frozen=True)
class _Comparison:
    """What all methods are compared with. Figures have the shape `(1 + samples,)`, the observed one first."""

    inputs: CostInputs
    single_costs: np.ndarray  # (1 + samples, experts)
    single_rewards: np.ndarray
    resampler: _Resampler
    cost_range: tuple[float, float]
    floor: float
    qualities: tuple[float, ...]
    budgets: tuple[float, ...]
    points: int

    @cached_property
    def best(self) -> int:
        """The best single model on the evaluated queries, which is kept for the resampled ones."""
        return int(np.nanargmax(self.single_rewards[0]))

    def aiqs(self, costs: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        pairs = zip(costs, rewards, strict=True)
        return np.array([aiq(*each, self.cost_range, self.floor) for each in pairs])

    @cached_property
    def mixture_aiq(self) -> np.ndarray:
        return self.aiqs(self.single_costs, self.single_rewards)

    def mixture_rewards(self, costs: np.ndarray) -> np.ndarray:
        every = zip(self.single_costs, self.single_rewards, costs, strict=True)
        return np.array([hull_rewards(*each) for each in every])

    def method(self, name: str, scores: torch.Tensor, expected_costs: torch.Tensor) -> MethodCosts:
        inputs, estimate = self.inputs, self.resampler.estimate
        full = cost_quality_curve(scores, expected_costs, inputs.rewards, inputs.costs)
        curve = full.thinned(self.points)
        sweep = sweep_cost_weights(scores.masked_fill(inputs.rewards.isnan(), torch.nan), expected_costs)
        chosen = sweep.chosen(curve.weights)
        costs, rewards = self.resampler.means(inputs.costs.gather(1, chosen), inputs.rewards.gather(1, chosen))
        aiqs = self.aiqs(costs, rewards)
        best_costs, best_rewards = self.single_costs[:, self.best], self.single_rewards[:, self.best]

        def read(measure: Callable[..., np.ndarray], asked: np.ndarray) -> np.ndarray:
            """What is observed is read off the whole curve, what is resampled off the points that were kept."""
            observed = measure(full.costs.numpy(), full.rewards.numpy(), asked[0])
            return np.append(observed, measure(costs[1:], rewards[1:], asked[1:]))

        qualities = []
        for quality in self.qualities:
            kept = best_rewards - (1 - quality) * np.abs(best_rewards)
            with np.errstate(divide="ignore", invalid="ignore"):  # the best single model may be free
                qualities.append(QualityCost(float(quality), estimate(read(cost_to_reach, kept) / best_costs)))
        budgets = []
        for budget in self.budgets:
            within = read(reward_within, budget * best_costs)
            gains = within - best_rewards, within - self.mixture_rewards(budget * best_costs)
            budgets.append(BudgetQuality(float(budget), estimate(within), *map(estimate, gains)))
        return MethodCosts(
            name=name,
            weights=tuple(curve.weights.tolist()),
            costs=tuple(curve.costs.tolist()),
            rewards=tuple(curve.rewards.tolist()),
            shares=dict(zip(inputs.names, map(tuple, curve.shares.T.tolist()), strict=True)),
            aiq=estimate(aiqs),
            aiq_gain=estimate(aiqs - self.mixture_aiq),
            qualities=tuple(qualities),
            budgets=tuple(budgets),
            strong_weak=None if inputs.pair is None else self.between_two(scores),
        )

    def between_two(self, scores: torch.Tensor) -> StrongWeakResult:
        strong, weak = (self.inputs.rewards[:, column] for column in self.inputs.pair)
        strong_scores, weak_scores = scores.nan_to_num(nan=_FORBIDDEN)[:, self.inputs.pair].unbind(dim=1)
        preference = strong_scores - weak_scores
        full = strong_weak_curve(preference, weak, strong)
        curve = full.thinned(self.points)
        called = (preference.unsqueeze(1) >= curve.thresholds).double()
        called = called.masked_fill((weak + strong).isnan().unsqueeze(1), torch.nan)
        rewards = torch.lerp(weak.unsqueeze(1), strong.unsqueeze(1), called)
        shares, means = self.resampler.means(called, rewards)

        def estimate(measure: Callable[..., np.ndarray], *args: float) -> Estimate:
            observed = measure(full.shares.numpy(), full.rewards.numpy(), *args)
            return self.resampler.estimate(np.append(observed, measure(shares[1:], means[1:], *args)))

        return StrongWeakResult(
            shares=tuple(curve.shares.tolist()),
            rewards=tuple(curve.rewards.tolist()),
            apgr=estimate(average_performance_gap_recovered),
            cpt={f"{part:g}": estimate(call_performance_threshold, part) for part in RECOVERED},
        )


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
