"""What routers give for their cost, and how it is kept and shown."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zooter_hf.evaluation.cost_markdown import render
from zooter_hf.evaluation.cost_plots import COST_PLOTS
from zooter_hf.evaluation.saved import SavedReport


@dataclass(frozen=True)
class Estimate:
    """A figure and its bootstrap interval.

    Args:
        value: The figure; `None` if it is not known, or a curve does not get so far.
        low: Lower end of the interval.
        high: Upper end; `None` likewise.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ExpertPoint:
    """A single model in the plane of cost and quality.

    Args:
        name: The expert.
        cost: Mean cost of a query in US dollars, on the queries where cost and reward are known.
        reward: Mean reward on these; both are `None` if there are none.
        on_hull: Whether it is a corner of the experts' non-decreasing convex hull.
    """

    name: str
    cost: float | None
    reward: float | None
    on_hull: bool


@dataclass(frozen=True)
class BudgetQuality:
    """The best that a curve gives for a share of what the best single model costs.

    Args:
        budget: The share.
        reward: The highest mean reward of a point that costs no more.
        gain: Over the best single model.
        gain_over_mixture: Over the mixture of experts that costs the same.
    """

    budget: float
    reward: Estimate
    gain: Estimate
    gain_over_mixture: Estimate


@dataclass(frozen=True)
class QualityCost:
    """What it costs on a curve to be as good as the best single model, or nearly so.

    Args:
        quality: The share of its mean reward that is kept.
        cost: The lowest cost of a point that keeps it, as a share of what the best single model costs; `None` if no
            point does, and for ends of the interval if resamples do not.
    """

    quality: float
    cost: Estimate


@dataclass(frozen=True)
class StrongWeakResult:
    """A method as a router between the strong and the weak model.

    Args:
        shares: Shares of the calls that the strong one gets, ascending from 0 to 1.
        rewards: Mean reward at each.
        apgr: Average performance gap recovered; a random router's is 0.5.
        cpt: By the recovered part of the gap, such as `"0.5"`, the share of strong calls that it takes.
    """

    shares: tuple[float, ...]
    rewards: tuple[float, ...]
    apgr: Estimate
    cpt: dict[str, Estimate]


@dataclass(frozen=True)
class MethodCosts:
    """What a method gives for its cost.

    Args:
        name: The method.
        weights: The weights of costs along its curve, in quality per US dollar, ascending from 0.
        costs: Mean cost of a query in US dollars at each.
        rewards: Mean reward at each.
        shares: The share of the queries that every expert takes at each.
        aiq: Mean height of its hull over the range of costs.
        aiq_gain: Over that of the mixture of experts.
        qualities: What it costs to keep a share of the best single model's reward.
        budgets: What it gives at a share of the best single model's cost.
        strong_weak: As a router between two models, if a pair is compared.
    """

    name: str
    weights: tuple[float, ...]
    costs: tuple[float, ...]
    rewards: tuple[float, ...]
    shares: dict[str, tuple[float, ...]]
    aiq: Estimate
    aiq_gain: Estimate
    qualities: tuple[QualityCost, ...]
    budgets: tuple[BudgetQuality, ...]
    strong_weak: StrongWeakResult | None = None

    def quality(self, share: float) -> QualityCost | None:
        """Returns what it costs to keep a share of the best single model's reward, `None` if it was not asked for."""
        return next((each for each in self.qualities if each.quality == share), None)

    def budget(self, share: float) -> BudgetQuality | None:
        """Returns what it gives at a share of the best single model's cost, `None` if that was not asked for."""
        return next((each for each in self.budgets if each.budget == share), None)


@dataclass(frozen=True)
class CostQualityReport(SavedReport):
    """Methods of routing compared by what they give for their cost. Make one with [`evaluate_costs`].

    Args:
        dataset: Name of the reward table.
        queries: How many were evaluated: those with an expert whose reward and cost are known.
        experts: The single models.
        best_single: The expert of the highest mean reward.
        cost_range: The costs in US dollars that every AIQ is taken over.
        mixture_aiq: AIQ of the mixture of experts on their hull, which reads no query: RouterBench's Zero router.
        methods: The methods, in the order they were given.
        oracle: Knowing every reward and cost beforehand.
        strong: The strong model of the pair, if one is compared.
        weak: The weak one.
        percent: Whether all rewards lie between 0 and 1, so that they are shown in percent.
        confidence: Share of the resampled figures that an interval holds.
        samples: How many resamples there were.
        seed: Which ones.
    """

    stem = "cost_quality"
    plots = COST_PLOTS

    dataset: str
    queries: int
    experts: tuple[ExpertPoint, ...]
    best_single: str
    cost_range: tuple[float, float]
    mixture_aiq: Estimate
    methods: tuple[MethodCosts, ...]
    oracle: MethodCosts
    strong: str | None
    weak: str | None
    percent: bool
    confidence: float
    samples: int
    seed: int

    def method(self, name: str) -> MethodCosts | None:
        """Returns a method by its name, `None` if it was not compared."""
        return next((method for method in self.methods if method.name == name), None)

    def expert(self, name: str) -> ExpertPoint | None:
        """Returns a single model by its name, `None` if there is none."""
        return next((expert for expert in self.experts if expert.name == name), None)

    @property
    def hull(self) -> list[ExpertPoint]:
        """The experts that are corners of the hull, the cheapest first."""
        return sorted((expert for expert in self.experts if expert.on_hull), key=lambda expert: expert.cost)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CostQualityReport":
        """Makes a report of what [`~CostQualityReport.to_dict`] returned.

        Raises:
            ValueError: If it is no such report.
        """
        try:
            return cls(
                **{
                    **values,
                    "experts": tuple(ExpertPoint(**each) for each in values["experts"]),
                    "cost_range": tuple(values["cost_range"]),
                    "mixture_aiq": Estimate(**values["mixture_aiq"]),
                    "methods": tuple(_method(each) for each in values["methods"]),
                    "oracle": _method(values["oracle"]),
                }
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"This is no report of costs and quality: {error}.") from error

    def to_json(self) -> str:
        """Returns the report as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False) + "\n"  # curves are long: one line

    def to_markdown(self) -> str:
        """Returns the report as Markdown."""
        return render(self)

    def format(self, value: float | None, signed: bool = False) -> str:
        """Writes a reward for people: in percent where rewards lie between 0 and 1, `-` for `None`."""
        if value is None:
            return "-"
        sign = "+" if signed else ""
        return f"{100 * value:{sign}.2f}" if self.percent else f"{value:{sign}.4g}"

    def __str__(self):
        unit = ", in percent" if self.percent else ""
        figures = ", ".join(f"{method.name} {self.format(method.aiq.value)}" for method in self.methods)
        return (
            f"AIQ on {self.dataset} ({self.queries:,} queries{unit}): {figures}, mixture of experts "
            f"{self.format(self.mixture_aiq.value)}, oracle {self.format(self.oracle.aiq.value)}"
        )


def _method(values: Mapping[str, Any]) -> MethodCosts:
    pair = values["strong_weak"]
    return MethodCosts(
        **{
            **values,
            **{name: tuple(values[name]) for name in ("weights", "costs", "rewards")},
            "shares": {expert: tuple(shares) for expert, shares in values["shares"].items()},
            **{name: Estimate(**values[name]) for name in ("aiq", "aiq_gain")},
            "qualities": tuple(QualityCost(each["quality"], Estimate(**each["cost"])) for each in values["qualities"]),
            "budgets": tuple(
                BudgetQuality(
                    each["budget"], *(Estimate(**each[name]) for name in ("reward", "gain", "gain_over_mixture"))
                )
                for each in values["budgets"]
            ),
            "strong_weak": None
            if pair is None
            else StrongWeakResult(
                tuple(pair["shares"]),
                tuple(pair["rewards"]),
                Estimate(**pair["apgr"]),
                {recovered: Estimate(**estimate) for recovered, estimate in pair["cpt"].items()},
            ),
        }
    )
