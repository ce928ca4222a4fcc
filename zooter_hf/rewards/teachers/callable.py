"""Any Python function as a teacher."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from zooter_hf.rewards.teachers.base import Scorable, Teacher


class CallableTeacher(Teacher):
    """Scores answers with a function.

    The function says `None` where it cannot say; anything else that is no finite number, and any exception, ends the
    run with an error that names the item: a mistake in the function must not look like missing scores.

    Args:
        function: Called as `function(query, answer)`.
        name: What the scores are kept under. Change it when the function changes: scores under the same name are
            taken for comparable. By default the function's own qualified name.
        with_reference: Whether the function is called as `function(query, answer, reference)` instead, where the
            reference may be `None`.

    Raises:
        ValueError: If there is no `name` and the function has none that tells it from others (lambdas, functions
            within functions, bound methods, objects).
    """

    def __init__(
        self,
        function: Callable[..., float | None],
        *,
        name: str | None = None,
        with_reference: bool = False,
    ):
        self.function = function
        self.name = name_of(function) if name is None else name
        self.with_reference = with_reference

    @property
    def settings(self) -> dict[str, Any]:
        """The name, and whether references are used."""
        return {"type": "CallableTeacher", "name": self.name, "with_reference": self.with_reference}

    def score(self, items: Sequence[Scorable]) -> list[list[float | None]]:
        """Scores answers one by one; see [`Teacher.score`].

        Raises:
            RuntimeError: If the function raises an exception, which is its cause.
            TypeError: If the function returns no number.
            ValueError: If the function returns a number that is not finite.
        """
        return [[self._score(place, item, answer) for answer in item.answers] for place, item in enumerate(items)]

    def _score(self, place: int, item: Scorable, answer: str) -> float | None:
        where = f"`{self.name}` at item {place} of the batch (query {item.query!r:.80})"
        reference = (item.reference,) if self.with_reference else ()
        return call(where, self.function, item.query, answer, *reference)


def call(where: str, function: Callable[..., Any], *args) -> float | None:
    """Calls a user's function, with errors that say where.

    Raises:
        RuntimeError: If the function raises an exception, which is its cause.
        TypeError: If it returns no number.
        ValueError: If it returns a number that is not finite.
    """
    try:
        value = function(*args)
    except Exception as error:
        raise RuntimeError(f"{where} raised {type(error).__name__}: {error}") from error
    return read_number(where, value)


def read_number(where: str, value: Any) -> float | None:
    """Returns what a user's function returned as a float; see [`call`]."""
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, RuntimeError):  # the last is what tensors of several elements raise
        number = None
    if number is None or isinstance(value, str | bytes):
        raise TypeError(f"{where} returned {value!r:.80}. Return a number, or None where there is no score.")
    if not math.isfinite(number):
        raise ValueError(f"{where} returned {number}. Return a finite number, or None where there is no score.")
    return number


def name_of(function: Callable[..., Any]) -> str:
    """Returns the qualified name of a function.

    Raises:
        ValueError: If it has none that tells it from others.
    """
    name = getattr(function, "__qualname__", "")
    # A built-in function belongs to its module; a bound method to an object that its name does not tell.
    plain = inspect.isfunction(function) or inspect.ismodule(getattr(function, "__self__", None))
    if not plain or "<" in name:
        raise ValueError(
            f"{function!r} has no name of its own that its scores could be kept under: pass `name=...`, or use a "
            "function that is defined at the top of a module."
        )
    return f"{function.__module__}.{name}"
