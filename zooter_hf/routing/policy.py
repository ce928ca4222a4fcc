"""What makes a decision of a ranking."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar


if TYPE_CHECKING:
    from zooter_hf.routing.decision import RankedExpert


@dataclass(frozen=True)
class Choice:
    """What a policy says.

    Args:
        order: The experts that may answer, the chosen one first, then those that may take its place.
        reason: Why this one, for a person to read.
    """

    order: tuple[str, ...]
    reason: str


class RoutingPolicy(ABC):
    """Chooses between the experts that may answer."""

    name: ClassVar[str]

    @abstractmethod
    def choose(self, ranking: Sequence["RankedExpert"]) -> Choice:
        """Chooses.

        Args:
            ranking: The experts that may answer, the most probable first; one or more.
        """


class ArgmaxPolicy(RoutingPolicy):
    """Takes the most probable expert, as the paper does (section 3)."""

    name = "argmax"

    def choose(self, ranking: Sequence["RankedExpert"]) -> Choice:
        """Chooses the first."""
        return Choice(tuple(expert.name for expert in ranking), f"most probable of {len(ranking)} experts")


POLICIES: dict[str, type[RoutingPolicy]] = {policy.name: policy for policy in (ArgmaxPolicy,)}


def make_policy(policy: "RoutingPolicy | str | None") -> RoutingPolicy:
    """Returns the policy of a name, the paper's by default.

    Raises:
        ValueError: If there is no such policy.
        TypeError: If it is no policy at all.
    """
    if policy is None:
        return ArgmaxPolicy()
    if isinstance(policy, RoutingPolicy):
        return policy
    if not isinstance(policy, str):
        raise TypeError(f"`policy` is a RoutingPolicy or the name of one, got {type(policy).__name__}.")
    if policy not in POLICIES:
        raise ValueError(f"There is no policy {policy!r}. Known are {sorted(POLICIES)}.")
    return POLICIES[policy]()
