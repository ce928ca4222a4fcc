"""How an ensemble behaves, as it is stored with its router."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from zooter_hf.experts import GenerationSettings
from zooter_hf.routing import RoutingPolicy, make_policy


FALLBACKS = ("next", "none")


@dataclass(frozen=True)
class EnsembleSettings:
    """How an ensemble behaves, whoever loads it.

    Args:
        policy: What chooses: a policy, its name, or settings that change those of the router's own policy, which holds
            by default. See [`~zooter_hf.routing.make_policy`].
        fallback: `"next"` to have the next best expert answer where one fails, `"none"` for an error.
        max_fallbacks: The most experts that are asked for one query after the first.
        sticky: Whether a conversation stays with its expert.
        sticky_margin: Unless another leads by more than this, in probability.
        cooldown_after: Failures in a row after which an expert is left alone for a while.
        cooldown: For how many seconds.
        generation: How experts generate.

    Raises:
        ValueError: If a value is out of its range.
    """

    policy: RoutingPolicy | Mapping[str, Any] | str | None = None
    fallback: str = "next"
    max_fallbacks: int = 2
    sticky: bool = False
    sticky_margin: float = 0.1
    cooldown_after: int = 3
    cooldown: float = 30.0
    generation: GenerationSettings = field(default_factory=GenerationSettings)

    def __post_init__(self):
        if not isinstance(self.policy, Mapping) or "name" in self.policy:  # others are checked with the router's
            make_policy(self.policy)
        check_fallback(self.fallback)
        if not isinstance(self.sticky, bool):
            raise ValueError(f"`sticky` must be True or False, got {self.sticky!r}.")
        if not 0 <= self.sticky_margin <= 1:
            raise ValueError(f"`sticky_margin` must lie between 0 and 1, got {self.sticky_margin}.")
        for name, least in (("max_fallbacks", 0), ("cooldown_after", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
        if not self.cooldown >= 0:
            raise ValueError(f"`cooldown` must be a number of seconds that is not negative, got {self.cooldown}.")

    def changed(self, changes: Mapping[str, Any]) -> "EnsembleSettings":
        """Returns the settings with some of them changed; `generation` may be a dict of its changes.

        Raises:
            TypeError: If there is no such setting.
            ValueError: If a value is out of its range.
        """
        changes = dict(changes)
        known = [each.name for each in fields(self)]
        if unknown := sorted(set(changes) - set(known)):
            raise TypeError(f"An ensemble has no settings {unknown}. Known are {known}.")
        if isinstance(generation := changes.get("generation"), Mapping):
            changes["generation"] = with_generation(self.generation, generation)
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as JSON values."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        policy = self.policy.to_dict() if isinstance(self.policy, RoutingPolicy) else self.policy
        return {**values, "policy": policy, "generation": self.generation.to_dict()}


def with_generation(settings: GenerationSettings, changes: Mapping[str, Any]) -> GenerationSettings:
    """Returns generation settings with some of them changed.

    Raises:
        TypeError: If there is no such setting.
        ValueError: If a value is out of its range.
    """
    known = [each.name for each in fields(GenerationSettings)]
    if unknown := sorted(set(changes) - set(known)):
        raise TypeError(f"Experts do not know the generation settings {unknown}. Known are {known}.")
    return replace(settings, **changes)


def check_fallback(fallback: str) -> str:
    """Returns what it is given.

    Raises:
        ValueError: If it is neither `"next"` nor `"none"`.
    """
    if fallback not in FALLBACKS:
        raise ValueError(f"`fallback` must be one of {FALLBACKS}, got {fallback!r}.")
    return fallback
