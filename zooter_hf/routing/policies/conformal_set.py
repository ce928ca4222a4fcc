"""Several experts, one of which is good as often as was promised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from zooter_hf.routing.conformal import KINDS, expert_sets, tie_noise
from zooter_hf.routing.policies.base import Choice, QueryFacts, RoutingPolicy, is_finite_number


if TYPE_CHECKING:
    from zooter_hf.routing.decision import RankedExpert


ABSTENTIONS = ("default", "refuse", "all")
COMPARED = ("exact", "numeric", "choice")
AGGREGATIONS = ("majority", "weighted", "first", "reward_model")


@dataclass(frozen=True, kw_only=True)
class SetPolicy(RoutingPolicy):
    """Takes a set of experts that holds a good one as often as was promised (RACER, arXiv 2603.06616).

    All but a share `alpha` of the sets do. Make one with [`~zooter_hf.calibration.calibrate_sets`], which finds the
    threshold. The promise is about all experts of the router: excluding some breaks it.

    Args:
        threshold: The largest nonconformity of an expert in a set; see [`~zooter_hf.routing.nonconformity`].
        alpha: How often a set may hold no good expert, as it was calibrated.
        delta: How often the calibration may fail; `None` for a promise on average.
        group_thresholds: Thresholds by tags, for queries whose nearest training queries carry one of them; for all
            others the `threshold` holds.
        kind: How nonconformity is measured: `"gap"`, `"complement"` or `"gain"`.
        margin: What was good in the calibration: experts within it of the best reward; `None` for the correct ones.
        seed: Of what breaks ties, as in the calibration.
        abstain: What becomes of a query of which no expert seems good: `"default"` has the `default` answer, or the
            most probable where there is none; `"refuse"` answers nothing, `"all"` asks all.
        aggregation: How one answer is made of several: `"majority"` or `"weighted"` vote of short answers, `"first"`
            for the answer of the most probable, `"reward_model"` for that which a teacher likes best.
        compare: What a vote compares of the answers: `"exact"` texts without regard to case and punctuation, the
            `"numeric"` result, or the letter of a multiple `"choice"`.
        sharpness: A weighted vote counts by the expert's chance to this power: 0 for equal votes; the larger, the more
            it takes to outvote the most probable. The default costs next to nothing even if all wrong answers are the
            same (`benchmarks.sets`).
        settings: See [`RoutingPolicy`].

    Raises:
        ValueError: If a value is out of its range.
    """

    name = "set"

    threshold: float = 0.0
    group_thresholds: Mapping[str, float] | None = None
    alpha: float = 0.1
    delta: float | None = None
    kind: str = "gain"
    margin: float | None = None
    seed: int = 0
    abstain: str = "default"
    aggregation: str = "weighted"
    compare: str = "exact"
    sharpness: float = 5.0

    def __post_init__(self):
        super().__post_init__()
        for threshold in (self.threshold, *(self.group_thresholds or {}).values()):
            if not is_finite_number(threshold):
                raise ValueError(f"`threshold` and `group_thresholds` must be numbers, got {threshold!r}.")
        for name in ("alpha", "delta"):
            level = getattr(self, name)
            if level is not None and (not is_finite_number(level) or not 0 < level < 1):
                raise ValueError(f"`{name}` must lie between 0 and 1, got {level!r}.")
        if not is_finite_number(self.sharpness) or self.sharpness < 0:
            raise ValueError(f"`sharpness` must be a number of 0 or more, got {self.sharpness!r}.")
        for name, allowed in (
            ("kind", KINDS),
            ("abstain", ABSTENTIONS),
            ("aggregation", AGGREGATIONS),
            ("compare", COMPARED),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}.")

    def choose_between(self, candidates: Sequence["RankedExpert"], query: QueryFacts) -> Choice:
        """Chooses the experts whose nonconformity is at most the threshold."""
        scores = torch.tensor([[score_of(expert) for expert in candidates]], dtype=torch.float64)
        noise = named_noise([query.key], [expert.name for expert in candidates], self.seed)
        threshold = next(
            (self.group_thresholds[tag] for tag in query.near if tag in (self.group_thresholds or {})), self.threshold
        )
        inside = expert_sets(scores, threshold, self.kind, noise)[0].tolist()
        by_score = sorted(range(len(candidates)), key=lambda index: -float(scores[0, index]))
        members = tuple(candidates[index].name for index in by_score if inside[index])
        order = (*members, *(candidates[index].name for index in by_score if not inside[index]))
        if members:
            reason = f"set of {len(members)}: {1 - self.alpha:.0%} of such sets hold a good expert"
            return Choice(order, reason, members, **self._vote_of(candidates, members))
        if self.abstain == "all":
            reason = "no expert seems good: all are asked"
            return Choice(order, reason, order, **self._vote_of(candidates, order), abstained=True)
        if self.abstain == "refuse":
            return Choice(order, "no expert seems good: refused", abstained=True, refused=True)
        if self.default in order:
            order = (self.default, *(name for name in order if name != self.default))
            return Choice(order, "no expert seems good: default expert", abstained=True)
        return Choice(order, "no expert seems good: the one that seems best", abstained=True)

    def _vote_of(self, candidates: Sequence["RankedExpert"], members: Sequence[str]) -> dict[str, Any]:
        """Says how one answer is made of those of the members; the most probable weighs 1 in a weighted vote."""
        weights = None
        if self.aggregation == "weighted":
            scores = {expert.name: score_of(expert) for expert in candidates}
            best = max(scores[name] for name in members) or 1.0
            weights = {name: (scores[name] / best) ** self.sharpness for name in members}
        return {"aggregation": self.aggregation, "compare": self.compare, "weights": weights}


def named_noise(keys: Sequence[str], names: Sequence[str], seed: int) -> torch.Tensor:
    """Draws what breaks ties, for each expert by its name: the same whichever others there are, in whatever order.

    Args:
        keys: What tells the queries from each other.
        names: The experts.
        seed: Which noise.

    Returns:
        `torch.Tensor` of shape `(queries, experts + 1)`, as of [`~zooter_hf.routing.conformal.tie_noise`].
    """
    columns = [tie_noise([f"{name}\n{key}" for key in keys], 0, seed) for name in (*names, "")]
    return torch.cat(columns, dim=1)


def score_of(expert: "RankedExpert") -> float:
    """Returns how likely an expert is good: its predicted reward as a share of 1, or else its probability."""
    return expert.probability if expert.reward is None else min(max(expert.reward, 0.0), 1.0)
