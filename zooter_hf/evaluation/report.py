"""What an evaluation found, and how it is kept and shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zooter_hf.evaluation.bootstrap import Comparison
from zooter_hf.evaluation.markdown import render
from zooter_hf.evaluation.metrics import ReliabilityBin
from zooter_hf.evaluation.plots import PLOTS
from zooter_hf.evaluation.saved import SavedReport


CARD_CONFIDENCE = 0.95  # what the card's text says


@dataclass(frozen=True)
class Row:
    """The score of the router, of an expert or of a baseline.

    Args:
        kind: `"router"`, `"best_single"`, `"training_best_single"`, `"random"`, `"best_per_subset"`, `"oracle"`,
            `"knn"`, `"kmeans"`, `"reward_model_ranking"`, or `"expert"` for every single model.
        name: What it is called in tables.
        score: Mean reward; `None` if none is known.
        low: Lower end of its bootstrap interval.
        high: Upper end.
        standard_error: Standard deviation of the resampled scores.
        subsets: Mean reward on every subset, `None` where none is known.
        mean_task_rank: Mean rank among itself and all single models over the subsets (MTR, section 4.1 of the paper).
        uplift: Share of the subsets on which no single model is better (%Uplift, section 4.1).
        cost: Mean of the known costs of a query in US dollars.
        expert: The expert, for a row that always takes the same one.
    """

    kind: str
    name: str
    score: float | None
    low: float | None
    high: float | None
    standard_error: float | None
    subsets: dict[str, float | None] = field(default_factory=dict)
    mean_task_rank: float | None = None
    uplift: float | None = None
    cost: float | None = None
    expert: str | None = None


@dataclass(frozen=True)
class EvaluationReport(SavedReport):
    """What an evaluation found. Make one with [`evaluate`] or [`evaluate_probabilities`].

    Args:
        router: Name of the router.
        dataset: Name of the reward table.
        queries: How many were evaluated.
        experts: The experts, in the order of the router's outputs.
        average: `"queries"` for scores that are means over queries, `"subsets"` for means of the subsets' means.
        percent: Whether all rewards lie between 0 and 1, so that scores are shown in percent.
        true_rewards: Whether scores are those of true rewards, beside the teacher's.
        rows: The router first, then baselines and oracle, then every expert.
        subsets: The number of queries of every subset.
        comparisons: The router against the best single model and against routing without training.
        regret: Score of the oracle minus that of the router.
        top1_agreement: Share of the queries whose routed expert is among the best known ones.
        kl: Mean of KL(target || router) in nats, if targets were given.
        ece: Expected calibration error, of the bins of `reliability`.
        reliability: Confidence against outcome, in bins of equal width.
        routed_share: Share of the queries that every expert is routed.
        best_share: Share of the queries on which every expert is best; ties are divided.
        rerouted: For how many queries another expert would have been chosen, had its reward been known.
        confidence: Share of the resampled scores that an interval holds.
        samples: How many resamples there were.
        seed: Which ones.
    """

    stem = "evaluation"
    plots = PLOTS

    router: str
    dataset: str
    queries: int
    experts: tuple[str, ...]
    average: str
    percent: bool
    true_rewards: bool
    rows: tuple[Row, ...]
    subsets: dict[str, int]
    comparisons: tuple[Comparison, ...]
    regret: float
    top1_agreement: float
    kl: float | None
    ece: float
    reliability: tuple[ReliabilityBin, ...]
    routed_share: dict[str, float]
    best_share: dict[str, float]
    rerouted: int
    confidence: float
    samples: int
    seed: int

    def row(self, kind: str) -> Row | None:
        """Returns the first row of a kind, `None` if there is none."""
        return next((row for row in self.rows if row.kind == kind), None)

    @property
    def router_row(self) -> Row:
        """The router's own row."""
        return self.rows[0]

    @property
    def baseline_rows(self) -> list[Row]:
        """All rows but those of the router and of the experts."""
        return [row for row in self.rows if row.kind not in ("router", "expert")]

    @property
    def expert_rows(self) -> list[Row]:
        """One row an expert, in their order."""
        return [row for row in self.rows if row.kind == "expert"]

    @property
    def score(self) -> float:
        """The router's mean reward."""
        return self.router_row.score

    @property
    def mean_task_rank(self) -> float | None:
        """The router's MTR (section 4.1 of the paper), `None` without subsets."""
        return self.router_row.mean_task_rank

    @property
    def uplift(self) -> float | None:
        """The router's %Uplift (section 4.1 of the paper), `None` without subsets."""
        return self.router_row.uplift

    @property
    def has_costs(self) -> bool:
        """Whether the router's cost is known."""
        return self.router_row.cost is not None

    def comparison(self, baseline: str) -> Comparison | None:
        """Returns the comparison with the row of a kind, `None` if there is none."""
        return next((comparison for comparison in self.comparisons if comparison.baseline == baseline), None)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EvaluationReport":
        """Makes a report of what [`~EvaluationReport.to_dict`] returned.

        Raises:
            ValueError: If it is no such report.
        """
        try:
            return cls(
                **{
                    **values,
                    "experts": tuple(values["experts"]),
                    "rows": tuple(Row(**row) for row in values["rows"]),
                    "comparisons": tuple(Comparison(**each) for each in values["comparisons"]),
                    "reliability": tuple(ReliabilityBin(**each) for each in values["reliability"]),
                }
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"This is no evaluation report: {error}.") from error

    def to_markdown(self) -> str:
        """Returns the report as Markdown, ready for a model card."""
        return render(self)

    def card_evaluation(self, script: str | None = None) -> dict[str, Any]:
        """Returns the `evaluation` of a router's `config.training`, which its model card shows.

        Subsets on which a figure is not known are left out, and so is the gain unless its interval is one of 95 %.

        Args:
            script: What made the figures, as one would type it.
        """
        router, single = self.router_row, self.row("best_single")
        gain = self.comparison("best_single")
        oracle = self.row("oracle")
        subsets = {
            name: {
                "queries": queries,
                **_rounded(
                    router=router.subsets[name],
                    best_single_model=single.subsets[name],
                    oracle=oracle.subsets[name],
                ),
            }
            for name, queries in self.subsets.items()
            if None not in (router.subsets[name], single.subsets[name])
        }
        evaluation = {
            "dataset": self.dataset,
            "queries": self.queries,
            "percent": self.percent,
            "router": _rounded(score=router.score, standard_error=router.standard_error),
            "best_single_model": {
                "expert": single.expert,
                **_rounded(score=single.score, standard_error=single.standard_error),
            },
            **_rounded(random=self.row("random").score, oracle=oracle.score),
        }
        if gain is not None and self.confidence == CARD_CONFIDENCE:
            evaluation["gain"] = _rounded(score=gain.difference, low=gain.low, high=gain.high)
        if subsets:
            evaluation["subsets"] = subsets
        if script is not None:
            evaluation["script"] = script
        return evaluation

    def renamed(self, router: str) -> "EvaluationReport":
        """Returns the report under another name of the router."""
        return replace(self, router=router, rows=(replace(self.router_row, name=router), *self.rows[1:]))

    def format(self, value: float | None, signed: bool = False) -> str:
        """Writes a score for people: in percent where rewards lie between 0 and 1, `-` for `None`."""
        if value is None:
            return "-"
        sign = "+" if signed else ""
        return f"{100 * value:{sign}.1f}" if self.percent else f"{value:{sign}.4g}"

    def __str__(self):
        single, oracle = self.row("best_single"), self.row("oracle")
        interval = f"{self.format(self.router_row.low)} to {self.format(self.router_row.high)}"
        unit = ", in percent" if self.percent else ""
        return (
            f"{self.router} on {self.dataset} ({self.queries:,} queries{unit}): {self.format(self.score)} "
            f"({interval}), {single.name} {self.format(single.score)}, oracle {self.format(oracle.score)}"
        )


def _rounded(**values: float | None) -> dict[str, float]:
    """Rounds as a card needs it; what is not known is left out."""
    return {name: round(value, 4) for name, value in values.items() if value is not None}
