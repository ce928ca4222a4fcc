"""The paper's policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zooter_hf.routing.policies.base import Choice, QueryFacts, RoutingPolicy


if TYPE_CHECKING:
    from zooter_hf.routing.decision import RankedExpert


@dataclass(frozen=True, kw_only=True)
class ArgmaxPolicy(RoutingPolicy):
    """Takes the most probable expert, as the paper does (section 3). Settings: see [`RoutingPolicy`]."""

    name = "argmax"

    def choose_between(self, candidates: Sequence["RankedExpert"], query: QueryFacts) -> Choice:
        """Chooses the first."""
        return Choice(tuple(expert.name for expert in candidates), f"most probable of {len(candidates)} experts")
