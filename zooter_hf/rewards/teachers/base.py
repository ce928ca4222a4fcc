"""What every teacher is: something that says what an answer is worth."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zooter_hf.experts import Loadable, Query


@dataclass(frozen=True)
class Scorable:
    """A query with the answers to score.

    Args:
        query: A string or chat messages.
        answers: One answer; or all that are to be compared, if the teacher compares.
        reference: The right answer, where it is known and the teacher needs it.
    """

    query: Query
    answers: tuple[str, ...]
    reference: str | None = None


class Teacher(Loadable, ABC):
    """Scores answers: higher is better, on a scale of its own.

    Nothing is loaded before the first score, or `load`.
    """

    #: Whether the score of an answer depends on the other answers to the query. If not, items hold one answer each.
    compares: bool = False

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that scores depend on, as JSON values: scores under other settings are never mixed with these."""

    @abstractmethod
    def score(self, items: Sequence[Scorable]) -> list[list[float | None]]:
        """Scores answers, in their order.

        Args:
            items: Queries with their answers. Several are scored together where that is faster.

        Returns:
            For every item one number an answer; `None` where the teacher cannot say.
        """
