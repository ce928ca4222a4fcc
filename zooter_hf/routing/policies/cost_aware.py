"""Quality against price."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zooter_hf.routing.policies.base import Choice, QueryFacts, RoutingPolicy, is_finite_number


if TYPE_CHECKING:
    from zooter_hf.routing.decision import RankedExpert


QUALITIES = ("reward", "probability")


@dataclass(frozen=True, kw_only=True)
class CostAwarePolicy(RoutingPolicy):
    """Takes the expert with the highest `quality - cost_weight * price`, or the cheapest that is about the best.

    The quality of an expert is its predicted reward where the router predicts rewards, and else its probability.
    Rewards trade against dollars in their own units; a probability is the share of an expert, and only ranks.

    The price of a query is `costs` where it is given there, and else that of the expert's spec for the tokens of the
    query and of an answer of `answer_tokens`. A budget is met by [`~zooter_hf.routing.fit_cost_weight`].

    Args:
        cost_weight: How much quality a US dollar is worth.
        tolerance: Instead of a weight: the cheapest expert is taken whose quality is within this of the best.
        costs: US dollars a query by the names of experts, in place of the prices of their specs.
        quality: `"reward"` or `"probability"`; rewards by default, where the router predicts them.
        settings: See [`RoutingPolicy`].

    Raises:
        ValueError: If a value is out of its range, or both weight and tolerance are given.
    """

    name = "cost_aware"

    cost_weight: float = 0.0
    tolerance: float | None = None
    costs: Mapping[str, float] | None = None
    quality: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if not is_finite_number(self.cost_weight) or self.cost_weight < 0:
            raise ValueError(f"`cost_weight` must be a number of at least 0, got {self.cost_weight!r}.")
        if self.tolerance is not None and (not is_finite_number(self.tolerance) or self.tolerance < 0):
            raise ValueError(f"`tolerance` must be a number of at least 0, got {self.tolerance!r}.")
        if self.tolerance is not None and self.cost_weight:
            raise ValueError(
                "`cost_weight` and `tolerance` are two ways to trade quality for price. Give one of them."
            )
        for name, cost in (self.costs or {}).items():
            if not is_finite_number(cost) or cost < 0:
                raise ValueError(f"`costs` of {name!r} must be US dollars a query, 0 or more, got {cost!r}.")
        if self.quality is not None and self.quality not in QUALITIES:
            raise ValueError(f"`quality` must be one of {QUALITIES}, got {self.quality!r}.")

    def expert_names(self) -> list[str]:
        """Returns the names of all experts that the policy speaks of."""
        return [*super().expert_names(), *(self.costs or {})]

    def price(self, expert: "RankedExpert") -> float | None:
        """Returns what a query costs with an expert, in US dollars; `None` if that is not known."""
        return (self.costs or {}).get(expert.name, expert.price)

    def worth(self, expert: "RankedExpert") -> float:
        """Returns the quality of an expert's answer.

        Raises:
            ValueError: If rewards are asked for and the router does not predict them.
        """
        if self.quality == "reward" and expert.reward is None:
            raise ValueError(
                'The policy asks for `quality="reward"`, and this router does not predict rewards. Fit them: '
                "`zooter_hf.distillation.fit_rewards(router, table)`, or leave `quality` out."
            )
        return expert.probability if self.quality == "probability" or expert.reward is None else expert.reward

    def choose_between(self, candidates: Sequence["RankedExpert"], query: QueryFacts) -> Choice:
        """Chooses the best for its price."""
        prices = {expert.name: self.price(expert) for expert in candidates}
        if missing := [name for name, price in prices.items() if price is None]:
            raise ValueError(
                f"The policy {self.name!r} needs the prices of all experts, and those of {missing} are not known. "
                "Give `input_price` and `output_price` in their specs, `costs` in the policy, or exclude them."
            )
        worth = {expert.name: self.worth(expert) for expert in candidates}
        best = max(worth, key=worth.get)
        if self.tolerance is not None:
            close = {name for name in worth if worth[name] >= worth[best] - self.tolerance}
            order = sorted(
                worth, key=lambda name: (name not in close, prices[name] if name in close else -worth[name])
            )
            reason = f"cheapest within {self.tolerance:g} of the best"
        else:
            order = sorted(worth, key=lambda name: self.cost_weight * prices[name] - worth[name])
            reason = f"best of quality minus {self.cost_weight:g} x price"
        chosen = order[0]
        if chosen == best:
            reason += f": the best itself, {worth[best]:.2f}"
        else:
            reason += (
                f": {worth[chosen]:.2f} against {worth[best]:.2f} of {best}, for ${prices[chosen]:.2g} instead of "
                f"${prices[best]:.2g}"
            )
        return Choice(tuple(order), reason)
