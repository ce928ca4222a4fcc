"""Teachers that compare two answers at a time."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from zooter_hf.experts import Query
from zooter_hf.rewards.teachers.base import Scorable, Teacher
from zooter_hf.rewards.teachers.callable import call, name_of, read_number


@dataclass(frozen=True)
class Comparison:
    """Two answers to a query, in the order in which they are shown.

    Args:
        query: A string or chat messages.
        first: One answer.
        second: The other; never the same text.
    """

    query: Query
    first: str
    second: str


class PairwiseTeacher(Teacher):
    """Turns comparisons of two answers into scores.

    The score of an answer is its win rate: the mean, over the other answers to the query, of the probability that it
    beats them. Every pair is asked in both orders and the two are averaged, so that preferring what comes first, or
    last, cancels out: `N` different answers take `N * (N - 1)` comparisons. Equal texts tie at 0.5 without being
    asked. A pair without a verdict in either order is left out of the means, and an answer that is left with none,
    or is alone, gets `None`.

    A subclass says what it prefers.
    """

    compares = True

    @abstractmethod
    def prefer(self, comparisons: Sequence[Comparison]) -> list[float | None]:
        """Says how probable it is that the first answer beats the second.

        Args:
            comparisons: All that a batch of queries needs.

        Returns:
            One number between 0 and 1 a comparison, in their order; `None` without a verdict.
        """

    def score(self, items: Sequence[Scorable]) -> list[list[float | None]]:
        """Scores answers by their win rates; see [`Teacher.score`]."""
        pairs = [list(permutations(dict.fromkeys(item.answers), 2)) for item in items]
        comparisons = [
            Comparison(item.query, first, second)
            for item, asked in zip(items, pairs, strict=True)
            for first, second in asked
        ]
        verdicts = iter(self.prefer(comparisons) if comparisons else [])
        return [
            win_rates(item.answers, {pair: next(verdicts) for pair in asked})
            for item, asked in zip(items, pairs, strict=True)
        ]


def win_rates(answers: Sequence[str], verdicts: dict[tuple[str, str], float | None]) -> list[float | None]:
    """Works out the win rate of every answer.

    Args:
        answers: The answers to a query.
        verdicts: For every two different texts, in both orders, the probability that the first beats the second.

    Returns:
        For every answer a number between 0 and 1; `None` if it was compared with no other.
    """

    def beats(one: str, other: str) -> float | None:
        if one == other:
            return 0.5
        as_first, as_second = verdicts[one, other], verdicts[other, one]
        return None if as_first is None or as_second is None else (as_first + 1 - as_second) / 2

    rates = []
    for place, answer in enumerate(answers):
        others = [beats(answer, other) for at, other in enumerate(answers) if at != place]
        known = [probability for probability in others if probability is not None]
        rates.append(sum(known) / len(known) if known else None)
    return rates


class CallablePairwise(PairwiseTeacher):
    """Compares answers with a function.

    Exceptions and values that are no probabilities end the run, as with [`CallableTeacher`].

    Args:
        function: Called as `function(query, first, second)`; returns the probability, 0 to 1, that the first answer
            is the better one, or `None` where it cannot say.
        name: What the scores are kept under; by default the function's own qualified name.
        batched: Whether the function takes a list of [`Comparison`] instead, and returns a list.

    Raises:
        ValueError: If there is no `name` and the function has none that tells it from others.
    """

    def __init__(self, function: Callable[..., Any], *, name: str | None = None, batched: bool = False):
        self.function = function
        self.name = name_of(function) if name is None else name
        self.batched = batched

    @property
    def settings(self) -> dict[str, Any]:
        """The name."""
        return {"type": "CallablePairwise", "name": self.name}

    def prefer(self, comparisons: Sequence[Comparison]) -> list[float | None]:
        """Asks the function; see [`PairwiseTeacher.prefer`].

        Raises:
            RuntimeError: If the function raises an exception, which is its cause.
            TypeError: If the function returns no number.
            ValueError: If a number lies outside 0 to 1, or there are not as many as comparisons.
        """
        places = [f"`{self.name}` at the query {each.query!r:.80}" for each in comparisons]
        if self.batched:
            values = self._call_batched(comparisons)
            verdicts = [read_number(where, value) for where, value in zip(places, values, strict=True)]
        else:
            verdicts = [
                call(where, self.function, each.query, each.first, each.second)
                for where, each in zip(places, comparisons, strict=True)
            ]
        for where, verdict in zip(places, verdicts, strict=True):
            if verdict is not None and not 0 <= verdict <= 1:
                raise ValueError(
                    f"{where} returned {verdict}. Return the probability, 0 to 1, that the first answer is better."
                )
        return verdicts

    def _call_batched(self, comparisons: Sequence[Comparison]) -> list[Any]:
        try:
            values = list(self.function(list(comparisons)))
        except Exception as error:
            raise RuntimeError(
                f"`{self.name}` raised {type(error).__name__} at a batch of {len(comparisons)} comparisons: {error}"
            ) from error
        if len(values) != len(comparisons):
            raise ValueError(
                f"`{self.name}` returned {len(values)} values for {len(comparisons)} comparisons. Return one each."
            )
        return values
