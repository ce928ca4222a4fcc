"""Checks of single rows, before they become part of a reward table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


# One value an expert; all but the rewards may be missing.
PER_EXPERT = ("rewards", "spreads", "costs", "responses")
SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class RowProblem:
    """What is wrong with a row.

    Args:
        where: The row, as a person finds it ("row 7", "train.jsonl, line 7").
        reason: What is wrong.
    """

    where: str
    reason: str

    def __str__(self):
        return f"{self.where}: {self.reason}"


class NoRewardError(ValueError):
    """A row whose rewards are all null: nothing is wrong with it, and nothing can be learned from it."""


def check_row(row: Any, expert_names: Sequence[str]) -> dict[str, Any]:
    """Brings a row into the shape that a table holds.

    Args:
        row: With `query` and `rewards`, and perhaps `tags`, `subset`, `spreads`, `costs` and `responses`. Other keys
            are passed over.
        expert_names: The experts of the table, in its order.

    Returns:
        `dict`: All columns; those that are not known are `None`, tags an empty list.

    Raises:
        NoRewardError: If no reward is known.
        ValueError: If something is wrong; says what.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"a row is an object with `query` and `rewards`, got {_shorten(row)}")
    for name in ("query", "rewards"):
        if row.get(name) is None:
            raise ValueError(f"it has no `{name}`; a row needs `query` and `rewards`, this one has {sorted(row)}")
    checked = {
        "query": check_query(row["query"]),
        "rewards": _check_numbers("rewards", row["rewards"], expert_names, required=True),
        "tags": check_tags(row.get("tags")),
        "subset": check_subset(row.get("subset")),
        "spreads": None,
        "costs": None,
        "responses": None,
    }
    for name in ("spreads", "costs"):
        if row.get(name) is not None:
            checked[name] = _check_numbers(name, row[name], expert_names, required=False)
    if row.get("responses") is not None:
        responses = _check_experts("responses", row["responses"], expert_names, required=False)
        for name, response in responses.items():
            if response is not None and not isinstance(response, str):
                raise ValueError(f"`responses` of {name!r} must be a string or null, got {_shorten(response)}")
        checked["responses"] = responses
    if all(reward is None for reward in checked["rewards"].values()):
        raise NoRewardError("all its rewards are null")
    return checked


def check_query(query: Any) -> str | list[dict[str, Any]]:
    """Returns a query that is a string or a list of messages; raises `ValueError` if it is empty or neither."""
    if isinstance(query, str):
        if not query.strip():
            raise ValueError("its query is empty")
        return query
    if not isinstance(query, Sequence) or not all(isinstance(m, Mapping) and "role" in m for m in query):
        raise ValueError(f"`query` must be a string or a list of chat messages, got {_shorten(query)}")
    if not any(message.get("content") for message in query):
        raise ValueError("its query is a chat without any content")
    return [dict(message) for message in query]


def _check_experts(column: str, values: Any, expert_names: Sequence[str], required: bool) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"`{column}` must be an object with one value an expert, got {_shorten(values)}")
    if unknown := [name for name in values if name not in expert_names]:
        raise ValueError(f"`{column}` names the experts {unknown}, which are not in the table: {list(expert_names)}")
    missing = [name for name in expert_names if name not in values]
    if missing and required:
        raise ValueError(f"`{column}` lacks the experts {missing}; write null where a value is not known")
    return {name: values.get(name) for name in expert_names}


def _check_numbers(column: str, values: Any, expert_names: Sequence[str], required: bool) -> dict[str, float | None]:
    numbers = _check_experts(column, values, expert_names, required)
    for name, value in numbers.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"`{column}` of {name!r} must be a number or null, got {_shorten(value)}")
        if not math.isfinite(value):
            raise ValueError(f"`{column}` of {name!r} is {value}; write null where a value is not known")
        numbers[name] = float(value)
    return numbers


def check_tags(tags: Any) -> list[str]:
    """Returns tags without repetitions; raises `ValueError` if they are not a list of strings."""
    if tags is None:
        return []
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise ValueError(f"`tags` must be a list of strings, got {_shorten(tags)}")
    tags = list(tags)
    if not all(isinstance(tag, str) and tag for tag in tags):
        raise ValueError(f"`tags` must be a list of strings that are not empty, got {_shorten(tags)}")
    return list(dict.fromkeys(tags))


def check_subset(subset: Any) -> str | None:
    """Returns a subset; raises `ValueError` if it is neither a string nor `None`."""
    if subset is not None and (not isinstance(subset, str) or not subset):
        raise ValueError(f"`subset` must be a string that is not empty, got {_shorten(subset)}")
    return subset


def list_problems(problems: Sequence[RowProblem]) -> str:
    """Names the first problems, a line each, and counts the others."""
    lines = [f"  {problem}" for problem in problems[:SHOWN_PROBLEMS]]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"  and {len(problems) - SHOWN_PROBLEMS} more")
    return "\n".join(lines)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
