"""Rows of tables whose files hold one expert each."""

from collections.abc import Hashable, Iterator
from typing import Any


class Merger:
    """Puts together what several files say of one query.

    Example:
    ```python
    >>> from zooter_hf.conversion.reward_tables.merging import Merger

    >>> merger = Merger()
    >>> merger.add("a.json, row 1", "1+1?", "a", {"query": "1+1?"}, rewards=1.0)
    >>> merger.add("b.json, row 1", "1+1?", "b", {"query": "1+1?"}, rewards=0.0)
    >>> list(merger)
    [('a.json, row 1', {'query': '1+1?', 'rewards': {'a': 1.0, 'b': 0.0}})]

    ```
    """

    def __init__(self):
        self._experts: dict[str, None] = {}
        self._rows: dict[Hashable, tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = {}

    def add(self, where: str, key: Hashable, expert: str, row: dict[str, Any], **values: Any):
        """Adds what a file says of an expert.

        Args:
            where: The row, as a person finds it.
            key: The same for every row of the query.
            expert: Whose row it is.
            row: What does not depend on the expert: `query`, `tags`, `subset`.
            values: The expert's `rewards`, `costs` and `responses`, as far as they are known.

        Raises:
            ValueError: If the expert has a row for the query already, or the query is another one there.
        """
        if not isinstance(expert, str):
            raise ValueError(f"the name of a model must be a string, got {expert!r}")
        first, known, columns = self._rows.get(key, (where, row, {}))
        if known["query"] != row["query"]:
            raise ValueError(f"it asks something else than {first}, which stands for the same query")
        if expert in columns.get("rewards", {}):
            raise ValueError(f"{expert!r} has a row for this query already")
        self._experts.setdefault(expert)
        for name, value in values.items():
            columns.setdefault(name, {})[expert] = value
        self._rows[key] = (first, known, columns)

    def experts_of(self, key: Hashable) -> set[str]:
        """The experts that have a row for a query."""
        return set(self._rows[key][2]["rewards"]) if key in self._rows else set()

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the rows with all experts, null where one has none, and where each stood first."""
        for where, row, columns in self._rows.values():
            filled = {name: {expert: of.get(expert) for expert in self._experts} for name, of in columns.items()}
            yield where, {**row, **filled}
