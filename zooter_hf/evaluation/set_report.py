"""What an evaluation of sets of experts found, and how it is kept and shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from zooter_hf.evaluation.saved import SavedReport
from zooter_hf.evaluation.set_markdown import render
from zooter_hf.evaluation.set_plots import SET_PLOTS


@dataclass(frozen=True)
class Spread:
    """A figure over the splits.

    Args:
        mean: Its mean, `None` if it is never known.
        deviation: Its standard deviation, `None` if it is known only once.
    """

    mean: float | None
    deviation: float | None


@dataclass(frozen=True)
class SubsetSets:
    """The sets of a subset.

    Args:
        risk: How often they hold no good expert.
        size: How many experts they have.
    """

    risk: Spread
    size: Spread


@dataclass(frozen=True)
class SetRow:
    """What a way of making sets came to. All but `subsets` are shares of the test queries, except for `size`.

    Args:
        source: What orders the experts: the name of the router, of other scores, or `"score threshold"`.
        alpha: How often a set may hold no good expert.
        grouped: Whether every group was calibrated by itself.
        risk: How often a set holds no good expert, the null expert being good where no other is. For the score
            threshold, which has none, and for the kind `"gain"` it is the same as `missed`.
        missed: How often some expert is good and none of the set is.
        size: How many experts a set has: the calls.
        abstained: How often it has none.
        abstained_rightly: How often no expert is good then.
        top1: How often the most probable expert is right, of the queries with a set that is not empty. The same
            queries are those of all that follows.
        voted_low: How often the vote of the set is right, in the worst case.
        voted_high: The same in the best case; see [`~zooter_hf.evaluation.set_votes.make_ballots`].
        ranked_low: The same for a vote of as many most probable experts for every query, with as many calls overall.
        ranked_high: In the best case.
        random_low: The same for a vote of as many experts at random.
        random_high: In the best case.
        subsets: Risk and size on every subset.
    """

    FIGURES: ClassVar[tuple[str, ...]] = (
        "risk", "missed", "size", "abstained", "abstained_rightly", "top1", "voted_low", "voted_high", "ranked_low",
        "ranked_high", "random_low", "random_high",
    )  # fmt: skip

    source: str
    alpha: float
    grouped: bool
    risk: Spread
    missed: Spread
    size: Spread
    abstained: Spread
    abstained_rightly: Spread
    top1: Spread
    voted_low: Spread
    voted_high: Spread
    ranked_low: Spread
    ranked_high: Spread
    random_low: Spread
    random_high: Spread
    subsets: dict[str, SubsetSets] = field(default_factory=dict)

    @property
    def worst_risk(self) -> float | None:
        """The mean risk on the subset where it is highest, `None` without subsets."""
        return max((each.risk.mean for each in self.subsets.values() if each.risk.mean is not None), default=None)


@dataclass(frozen=True)
class SetReport(SavedReport):
    """What sets of experts are worth. Make one with [`evaluate_sets`].

    Args:
        router: Name of the router.
        dataset: Name of the reward table.
        queries: How many there are, for calibration and test together.
        experts: How many there are.
        unanswerable: Share of the queries of which no expert is good.
        alphas: How often a set may hold no good expert.
        kind: How nonconformity is measured.
        margin: What is good: experts within it of the best reward; `None` for those that are correct.
        correct_above: The reward above which an expert is correct.
        delta: How often a calibration may fail, `None` where the promise is one on average.
        answers: Whether votes are those of answers, and not bounds.
        sharpness: Votes count by the probabilities to this power.
        repeats: How many splits there were.
        calibration_share: How many of the queries are for calibration.
        seed: Which splits.
        subsets: The number of queries of every subset.
        rows: The router first, then other scores and the score threshold, each with every alpha.
    """

    stem = "sets"
    plots = SET_PLOTS

    router: str
    dataset: str
    queries: int
    experts: int
    unanswerable: float
    alphas: tuple[float, ...]
    kind: str
    margin: float | None
    correct_above: float
    delta: float | None
    answers: bool
    sharpness: float
    repeats: int
    calibration_share: float
    seed: int
    subsets: dict[str, int]
    rows: tuple[SetRow, ...]

    def row(self, source: str, alpha: float, grouped: bool = False) -> SetRow | None:
        """Returns the row of a way of making sets, `None` if there is none."""
        return next(
            (row for row in self.rows if (row.source, row.alpha, row.grouped) == (source, alpha, grouped)), None
        )

    @property
    def sources(self) -> list[str]:
        """What orders the experts, the router first."""
        return list(dict.fromkeys(row.source for row in self.rows))

    @property
    def has_groups(self) -> bool:
        """Whether groups were calibrated by themselves too."""
        return any(row.grouped for row in self.rows)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SetReport":
        """Makes a report of what [`~SetReport.to_dict`] returned.

        Raises:
            ValueError: If it is no such report.
        """
        try:
            rows = tuple(_row(row) for row in values["rows"])
            return cls(**{**values, "alphas": tuple(values["alphas"]), "rows": rows})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"This is no report of sets: {error}.") from error

    def to_markdown(self) -> str:
        """Returns the report as Markdown."""
        return render(self)

    def __str__(self):
        rows = [row for row in self.rows if row.source == self.router and not row.grouped]
        figures = ", ".join(
            f"risk {row.risk.mean:.3f} with {row.size.mean:.2f} calls at {row.alpha:g}" for row in rows
        )
        return f"Sets of {self.router} on {self.dataset} ({self.queries:,} queries, {self.repeats} splits): {figures}"


def _row(values: Mapping[str, Any]) -> SetRow:
    subsets = {
        name: SubsetSets(Spread(**each["risk"]), Spread(**each["size"])) for name, each in values["subsets"].items()
    }
    return SetRow(**{**values, **{name: Spread(**values[name]) for name in SetRow.FIGURES}, "subsets": subsets})
