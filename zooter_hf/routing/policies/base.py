"""What all policies share: who may answer at all, and what they say."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from zooter_hf.modeling import ExpertSpec


if TYPE_CHECKING:
    from zooter_hf.routing.decision import RankedExpert


DEFAULT_ANSWER_TOKENS = 256


@dataclass(frozen=True)
class QueryFacts:
    """What a policy may want to know of a query besides the ranking.

    Args:
        tokens: Its length in tokens of the router; `None` if not known.
        distance: How far it is from the router's training queries, from 0 to 2; `None` for a router without centroids.
        near: The tags of the training queries nearest to it.
        key: What tells it from other queries, for draws that are the same whenever it comes: its text.
    """

    tokens: int | None = None
    distance: float | None = None
    near: tuple[str, ...] = ()
    key: str = ""


@dataclass(frozen=True)
class Choice:
    """What a policy says.

    Args:
        order: The experts that may answer, the chosen one first, then those that may take its place.
        reason: Why this one, for a person to read.
        members: The experts of the set, for a policy that chooses several; the chosen one first.
        aggregation: How one answer is made of those of several members.
        compare: What of the answers is compared in a vote.
        weights: How much the answer of each member counts in a vote; the same by default.
        abstained: Whether the policy found that no expert can be relied on.
        refused: Whether nobody is to answer for that reason.
    """

    order: tuple[str, ...]
    reason: str
    members: tuple[str, ...] = ()
    aggregation: str | None = None
    compare: str | None = None
    weights: Mapping[str, float] | None = None
    abstained: bool = False
    refused: bool = False


@dataclass(frozen=True, kw_only=True)
class RoutingPolicy(ABC):
    """Makes a decision of a ranking. A policy is a value: make another one with `replace` or `make_policy`.

    All policies share these settings of who may answer; each adds its own of how to choose between them.

    Args:
        include: The only experts that may answer; all by default.
        exclude: Experts that may not.
        require: What an expert must be able to do: names that its spec lists under `metadata["features"]`, such as
            `"images"` or `"tools"`.
        answer_tokens: Expected length of an answer, for prices and for the context length of experts: one for all, or
            one each by the names of experts, 256 for others.
        default: The expert that answers where no other qualifies, or where the query is too far from the training.
        max_distance: The farthest that a query may be from the router's training queries, in cosine distance from 0 to
            2, before `default` answers it; without limit by default.

    Raises:
        ValueError: If a value is out of its range, or two contradict each other.
        TypeError: If a list of names is none.
    """

    name: ClassVar[str]

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    answer_tokens: int | Mapping[str, int] = DEFAULT_ANSWER_TOKENS
    default: str | None = None
    max_distance: float | None = None

    def __post_init__(self):
        for name in ("include", "exclude", "require"):
            value = getattr(self, name)
            if isinstance(value, str) or not ((value is None and name == "include") or isinstance(value, Collection)):
                raise TypeError(f"`{name}` is a list of names, got {value!r}.")
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        if both := sorted(set(self.include or ()) & set(self.exclude)):
            raise ValueError(f"{both} are both in `include` and in `exclude`.")
        if self.default in self.exclude:
            raise ValueError(f"The default expert {self.default!r} is excluded. Name another, or do not exclude it.")
        if self.include == ():
            raise ValueError("`include` is empty: no expert could answer. Leave it out for all experts.")
        lengths = self.answer_tokens
        for length in lengths.values() if isinstance(lengths, Mapping) else [lengths]:
            if isinstance(length, bool) or not isinstance(length, int) or length < 0:
                raise ValueError(f"`answer_tokens` must be whole numbers of at least 0, got {length!r}.")
        if self.max_distance is not None:
            if not 0 <= self.max_distance <= 2:
                raise ValueError(f"`max_distance` is a cosine distance from 0 to 2, got {self.max_distance}.")
            if self.default is None:
                raise ValueError("`max_distance` needs a `default`: the expert for queries that are farther away.")

    def check(self, experts: Sequence[ExpertSpec]):
        """Checks that the policy fits the experts of a router.

        Raises:
            ValueError: If it names an expert that is not there, or no expert is left.
        """
        names = [expert.name for expert in experts]
        if unknown := sorted({name for name in self.expert_names() if name not in names}):
            raise ValueError(f"The policy {self.name!r} names {unknown}, which are not among the experts {names}.")
        if set(names) <= set(self.exclude):
            raise ValueError(f"The policy {self.name!r} excludes all experts. Leave at least one.")

    def expert_names(self) -> list[str]:
        """Returns the names of all experts that the policy speaks of."""
        lengths = self.answer_tokens if isinstance(self.answer_tokens, Mapping) else ()
        return [*(self.include or ()), *self.exclude, *([self.default] if self.default else []), *lengths]

    def answer_length(self, expert: str) -> int:
        """Returns the expected length of an expert's answer, in tokens."""
        if isinstance(self.answer_tokens, Mapping):
            return self.answer_tokens.get(expert, DEFAULT_ANSWER_TOKENS)
        return self.answer_tokens

    def rule_out(self, spec: ExpertSpec, query: QueryFacts) -> str | None:
        """Says why an expert may not answer a query; `None` if it may."""
        if self.include is not None and spec.name not in self.include:
            return "not included"
        if spec.name in self.exclude:
            return "excluded"
        if missing := [each for each in self.require if each not in spec.metadata.get("features", ())]:
            return f"lacks {', '.join(missing)}"
        needed = (query.tokens or 0) + self.answer_length(spec.name)
        if spec.context_length is not None and query.tokens is not None and needed > spec.context_length:
            return f"takes {spec.context_length} tokens, {needed} are needed"
        return None

    def choose(self, ranking: Sequence["RankedExpert"], query: QueryFacts) -> Choice:
        """Chooses.

        Args:
            ranking: All experts that can be asked, the most probable first; `out` says of each why it may not answer.
            query: What is known of the query.

        Raises:
            ValueError: If no expert qualifies and there is no default, or the policy lacks what it needs.
        """
        candidates = [expert for expert in ranking if expert.out is None]
        if not candidates:
            return self._fall_back(ranking, "no expert qualifies")
        if self.max_distance is not None:
            if query.distance is None:
                raise ValueError(
                    "`max_distance` needs a router with centroids of its training queries: "
                    "`zooter_hf.store_centroids(router, table)`, or leave it out."
                )
            if query.distance > self.max_distance:
                reason = f"unlike any training query (distance {query.distance:.2f} > {self.max_distance:.2f})"
                return self._fall_back(ranking, reason)
        return self.choose_between(candidates, query)

    @abstractmethod
    def choose_between(self, candidates: Sequence["RankedExpert"], query: QueryFacts) -> Choice:
        """Chooses between the experts that qualify.

        Args:
            candidates: The most probable first; one or more.
            query: What is known of the query.
        """

    def to_dict(self) -> dict[str, Any]:
        """Returns the policy as JSON values: its name, and the settings that are not the usual ones."""
        values: dict[str, Any] = {"name": self.name}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                values[field.name] = list(value) if isinstance(value, tuple) else value
        return values

    def changed(self, changes: Mapping[str, Any]) -> "RoutingPolicy":
        """Returns the policy with some settings changed.

        Raises:
            TypeError: If there is no such setting.
        """
        self.check_settings(changes)
        return replace(self, **changes)

    @classmethod
    def check_settings(cls, settings: Collection[str]):
        """Raises `TypeError` if there is no such setting; lists those that there are."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(settings) - set(known)):
            raise TypeError(f"The policy {cls.name!r} has no settings {unknown}. It has {known}.")

    def _fall_back(self, ranking: Sequence["RankedExpert"], reason: str) -> Choice:
        names = [expert.name for expert in ranking if expert.out is None]
        if self.default is None or all(expert.name != self.default for expert in ranking):
            why = "; ".join(f"{expert.name}: {expert.out}" for expert in ranking if expert.out)
            remedy = "Change the policy, or name a `default` that can answer."
            raise ValueError(f"The policy {self.name!r} finds no expert for the query: {reason} ({why}). {remedy}")
        others = [name for name in names if name != self.default]
        return Choice((self.default, *others), f"{reason}: default expert")


def is_finite_number(value: Any) -> bool:
    """Tells whether a setting is a number to reckon with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
