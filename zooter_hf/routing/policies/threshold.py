"""A strong and a weak model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zooter_hf.routing.policies.base import Choice, QueryFacts, RoutingPolicy, is_finite_number


if TYPE_CHECKING:
    from zooter_hf.routing.decision import RankedExpert


@dataclass(frozen=True, kw_only=True)
class ThresholdPolicy(RoutingPolicy):
    """Takes the strong expert if the chance that it wins against the weak one reaches a threshold.

    The two-model routing of RouteLLM (arXiv 2406.18665, section 3). The chance that it wins is its share of the
    probability of both. A wanted share of strong calls is met by [`~zooter_hf.routing.fit_threshold`].

    Args:
        strong: The expert for hard queries.
        weak: The expert for all others.
        threshold: From 0, strong always, to 1.
        settings: See [`RoutingPolicy`].

    Raises:
        ValueError: If the two are not given or the same, or the threshold is out of its range.
    """

    name = "threshold"

    strong: str = ""
    weak: str = ""
    threshold: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not self.strong or not self.weak or self.strong == self.weak:
            raise ValueError(f"`strong` and `weak` name two experts, got {self.strong!r} and {self.weak!r}.")
        if not is_finite_number(self.threshold) or not 0 <= self.threshold <= 1:
            raise ValueError(f"`threshold` must lie between 0 and 1, got {self.threshold!r}.")

    def expert_names(self) -> list[str]:
        """Returns the names of all experts that the policy speaks of."""
        return [*super().expert_names(), self.strong, self.weak]

    def win_rate(self, candidates: Sequence["RankedExpert"]) -> float | None:
        """Returns the chance that the strong expert wins; `None` if one of the two is not there."""
        probabilities = {expert.name: expert.probability for expert in candidates}
        if self.strong not in probabilities or self.weak not in probabilities:
            return None
        both = probabilities[self.strong] + probabilities[self.weak]
        return probabilities[self.strong] / both if both else 0.5

    def choose_between(self, candidates: Sequence["RankedExpert"], query: QueryFacts) -> Choice:
        """Chooses one of the two; the other takes its place before any third."""
        names = [expert.name for expert in candidates]
        pair = [name for name in (self.strong, self.weak) if name in names]
        others = [name for name in names if name not in pair]
        rate = self.win_rate(candidates)
        if rate is None:
            if not pair:
                raise ValueError(f"Neither {self.strong!r} nor {self.weak!r} may answer. Change the policy.")
            return Choice((*pair, *others), "the other of the two may not answer")
        if rate >= self.threshold:
            return Choice((*pair, *others), f"wins with {rate:.0%}, at least the threshold of {self.threshold:.0%}")
        reason = f"{self.strong} wins with {rate:.0%}, less than the threshold of {self.threshold:.0%}"
        return Choice((*reversed(pair), *others), reason)
