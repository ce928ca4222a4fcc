"""A query, with what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zooter_hf.experts import Query
from zooter_hf.rewards.rendering import read_content
from zooter_hf.rewards.rows import check_query, check_subset, check_tags


@dataclass(frozen=True)
class QueryItem:
    """A query of a query set.

    Args:
        query: A string or chat messages.
        reference: The right answer, for teachers that compare with it.
        tags: What the query is about, if that is known already.
        subset: The named slice that it belongs to.

    Raises:
        ValueError: If the query is empty or malformed, or another field is.
    """

    query: Query
    reference: str | None = None
    tags: tuple[str, ...] = ()
    subset: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "query", check_query(self.query))
        object.__setattr__(self, "tags", tuple(check_tags(self.tags)))
        check_subset(self.subset)
        if self.reference is not None and not isinstance(self.reference, str):
            raise ValueError(f"`reference` must be a string, got {self.reference!r}")

    @classmethod
    def from_value(cls, value: "QueryItem | Mapping[str, Any] | Query") -> "QueryItem":
        """Makes an item of what people write: an item, a dict of its fields, a string, or chat messages."""
        if isinstance(value, cls):
            return value
        return cls(**value) if isinstance(value, Mapping) else cls(value)

    @property
    def text(self) -> str:
        """The query as text; of a chat the contents of its user turns, a line each."""
        if isinstance(self.query, str):
            return self.query
        return "\n".join(read_content(turn.get("content")) for turn in self.query if turn["role"] == "user")
