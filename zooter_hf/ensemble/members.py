"""The experts of an ensemble: those of its router, some in another form, and some of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers.utils import logging

from zooter_hf.experts import Expert, load_experts, make_expert
from zooter_hf.modeling import ExpertSpec


logger = logging.get_logger(__name__)

ExpertLike = Expert | ExpertSpec | Mapping[str, Any]
Experts = str | Path | Mapping[str, ExpertLike] | Sequence[ExpertLike]
# Where another expert can answer, that one is better than the fifth attempt at the first, or a long wait.
QUICK_OPTIONS = {"retries": 1, "max_retry_after": 2.0}


@dataclass(frozen=True)
class Members:
    """Who can answer.

    Args:
        experts: The experts that can, by name.
        specs: The specs of all experts of the router, as they are stored: those that cannot answer as well.
        added: The specs of experts that the router does not know.
    """

    experts: dict[str, Expert]
    specs: tuple[ExpertSpec, ...]
    added: tuple[ExpertSpec, ...]


def gather(
    of_router: Sequence[ExpertSpec],
    given: Experts | None,
    *,
    on_missing: str = "error",
    quick: bool = True,
) -> Members:
    """Finds out who can answer.

    Args:
        of_router: The experts that the router knows.
        given: Experts in place of those of the same name, or besides: specs, experts, a mapping of names to them, or a
            YAML or JSON file.
        on_missing: What to do about experts of the router that cannot answer: `"error"`, or `"skip"` to never choose
            them.
        quick: Whether endpoints are given up sooner than their options have it by default, since another expert can
            take their place: after one more attempt, and rather than to wait for more than 2 s.

    Raises:
        ValueError: If an expert of the router cannot answer and is not to be skipped, none can, or a name stands
            twice.
        TypeError: If something given is no expert.
    """
    if on_missing not in ("error", "skip"):
        raise ValueError(f'`on_missing` must be "error" or "skip", got {on_missing!r}.')
    members: dict[str, Expert | ExpertSpec] = {spec.name: spec for spec in of_router}
    members.update(read_experts(given))
    names = [spec.name for spec in of_router]
    missing = [name for name, each in members.items() if isinstance(each, ExpertSpec) and each.backend is None]
    all_missing = set(names) <= set(missing)
    if missing and (on_missing == "error" or all_missing):
        remedy = "" if all_missing else ' or pass on_missing="skip" to never choose them'
        raise ValueError(
            f"The experts {missing} have no `backend`, so that they cannot answer. Say how to run them with "
            f"`experts`, a list of specs or a YAML file{remedy}."
        )
    if missing:
        logger.warning(f"The experts {missing} have no `backend`, and are never chosen.")
    specs = {name: each if isinstance(each, ExpertSpec) else each.spec for name, each in members.items()}
    experts = {name: _make(each, quick) for name, each in members.items() if name not in missing}
    return Members(
        experts, tuple(specs[name] for name in names), tuple(spec for name, spec in specs.items() if name not in names)
    )


def read_experts(given: Experts | None) -> dict[str, Expert | ExpertSpec]:
    """Brings the ways to give experts into one form.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a name stands twice, or a spec cannot be right.
        TypeError: If something is no expert.
    """
    if given is None:
        return {}
    if isinstance(given, str | Path):
        return {spec.name: spec for spec in load_experts(given)}
    if isinstance(given, Mapping):
        return {name: _named(name, each) for name, each in given.items()}
    members: dict[str, Expert | ExpertSpec] = {}
    for each in given:
        member = each if isinstance(each, Expert) else ExpertSpec.from_value(each)
        name = member.spec.name if isinstance(member, Expert) else member.name
        if name in members:
            raise ValueError(f"The expert {name!r} is given twice. Names must be unique.")
        members[name] = member
    return members


def _named(name: str, given: ExpertLike) -> Expert | ExpertSpec:
    if isinstance(given, Mapping):
        given = ExpertSpec.from_value({"name": name, **given})
    spec = given.spec if isinstance(given, Expert) else given
    if not isinstance(spec, ExpertSpec):
        raise TypeError(f"The expert {name!r} is an Expert, an ExpertSpec or a dict of its fields, got {given!r:.80}.")
    if spec.name == name:
        return given
    if isinstance(given, Expert):
        raise ValueError(
            f"The expert given as {name!r} says of itself that it is {spec.name!r}. Make it with a spec of the name "
            "that the router knows."
        )
    return replace(spec, name=name)


def _make(member: Expert | ExpertSpec, quick: bool) -> Expert:
    if isinstance(member, Expert):
        return member
    if quick and member.backend == "endpoint":
        member = replace(member, options={**QUICK_OPTIONS, **member.options})
    return make_expert(member)
