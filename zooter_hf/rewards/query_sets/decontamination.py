"""Queries that have too much in common with an evaluation set are left out."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zooter_hf.rewards.query_sets.items import QueryItem


@dataclass(frozen=True)
class Contamination:
    """A query that was left out.

    Args:
        row: Its number in the set, from 0.
        shared: The words that it has in common with the evaluation set.
        source: The name of that set.
    """

    row: int
    shared: str
    source: str


def decontaminate(
    items: Sequence[QueryItem], against: dict[str, Iterable[QueryItem | str]], n: int = 6
) -> tuple[list[QueryItem], list[Contamination]]:
    """Leaves out queries that share `n` words in a row with an evaluation set (section 4.1 of the paper: 6).

    Words are runs of letters and digits, in lower case; of scripts that do not part words by spaces a word is a
    character. A query of fewer than `n` words is left out if it is, as a whole, a query of the evaluation set.

    Args:
        items: The query set.
        against: The evaluation sets, by name.
        n: How many words.

    Returns:
        The queries that are kept, and what was left out and why.

    Raises:
        ValueError: If `n` is not positive.
    """
    if n < 1:
        raise ValueError(f"`n` must be positive, got {n}.")
    source_of: dict[tuple[str, ...], str] = {}
    for source, queries in against.items():
        for query in queries:
            for gram in _grams(query if isinstance(query, str) else query.text, n):
                source_of.setdefault(gram, source)
    kept, left_out = [], []
    for row, item in enumerate(items):
        shared = next((gram for gram in _grams(item.text, n) if gram in source_of), None)
        if shared is None:
            kept.append(item)
        else:
            left_out.append(Contamination(row, " ".join(shared), source_of[shared]))
    return kept, left_out


# CJK, kana, Hangul is spaced; Thai, Lao, Khmer and Burmese are not.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def _grams(text: str, n: int) -> Iterable[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    if words and len(words) < n:
        return [tuple(words)]
    return (tuple(words[start : start + n]) for start in range(len(words) - n + 1))
