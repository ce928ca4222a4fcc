"""What every tagger is: something that says what a query is about."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from zooter_hf.experts import Loadable, Query


class Tagger(Loadable, ABC):
    """Tags queries.

    Nothing is loaded before the first tag, or `load`.
    """

    #: Whether the tags of a query depend on the other queries: then all are tagged at once, at the end.
    needs_all_queries: bool = False

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that tags depend on, as JSON values: tags under other settings are never mixed with these."""

    @abstractmethod
    def tag(self, queries: Sequence[Query]) -> list[list[str] | None]:
        """Tags queries, in their order; `None` for a query that the tagger failed on."""
