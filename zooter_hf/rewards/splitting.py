"""Splits of a reward table that do not leak."""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np


def deal_folds(texts: Sequence[str], subsets: Sequence[str | None], folds: int, seed: int) -> np.ndarray:
    """Deals the queries of every subset evenly over folds.

    Queries that differ in nothing but case, digits and punctuation stay together: in a split they would be the same
    question on both sides.

    Returns:
        `numpy.ndarray` of shape `(queries,)`: The fold of every query, `0` to `folds - 1`.

    Raises:
        ValueError: If there are fewer than two folds, or fewer distinct queries than folds.
    """
    _check_folds(folds)
    groups: dict[str, int] = {}
    group_of = np.array([groups.setdefault(_group_key(text), len(groups)) for text in texts])
    if len(groups) < folds:
        raise ValueError(
            f"There are {len(groups)} queries that differ in more than case, digits and punctuation, too few for "
            f"{folds} folds."
        )
    # A group belongs to the subset of its first query.
    _, first = np.unique(group_of, return_index=True)
    members: dict[str, list[int]] = {}
    for group, row in enumerate(first):
        members.setdefault(subsets[row] or "", []).append(group)
    generator = np.random.default_rng(seed)
    fold_of_group = np.empty(len(groups), dtype=np.int64)
    dealt = 0  # goes on from subset to subset, so that many small ones do not all fall into the first fold
    for subset in sorted(members):
        of_subset = generator.permutation(members[subset])
        fold_of_group[of_subset] = (dealt + np.arange(len(of_subset))) % folds
        dealt += len(of_subset)
    return fold_of_group[group_of]


def deal_subsets(subsets: Sequence[str | None], folds: int, seed: int) -> np.ndarray:
    """Deals whole subsets over folds: what is held out is of a kind that was not trained on.

    Returns:
        `numpy.ndarray` of shape `(queries,)`: The fold of every query, `0` to `folds - 1`; queries without a subset
        are one.

    Raises:
        ValueError: If there are fewer than two folds, or fewer subsets than folds.
    """
    _check_folds(folds)
    names, subset_of = np.unique([subset or "" for subset in subsets], return_inverse=True)
    if len(names) < folds:
        raise ValueError(f"There are {len(names)} subsets, too few for {folds} folds.")
    return (np.random.default_rng(seed).permutation(len(names)) % folds)[subset_of]


def split_indices(
    texts: Sequence[str],
    subsets: Sequence[str | None],
    test_share: float,
    seed: int,
    by: Literal["row", "subset"],
) -> tuple[np.ndarray, np.ndarray]:
    """Splits queries in two; see [`RewardTable.split`].

    Returns:
        Sorted indices of the training and of the test rows.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"`test_share` must lie between 0 and 1, got {test_share}.")
    if by == "row":
        # As many folds as make the share a whole number of them, nearly.
        folds = min(
            max(2, round(1 / min(test_share, 1 - test_share)) * 10), 1000, max(2, len(set(map(_group_key, texts))))
        )
        fold_of = deal_folds(texts, subsets, folds, seed)
        test = fold_of < min(max(1, round(test_share * folds)), folds - 1)
    elif by == "subset":
        names = sorted({subset for subset in subsets if subset is not None})
        if len(names) < 2:
            raise ValueError(f"A split by subset needs at least two subsets, the table has {names}.")
        count = min(max(1, round(test_share * len(names))), len(names) - 1)
        chosen = set(np.random.default_rng(seed).permutation(names)[:count].tolist())
        test = np.array([subset in chosen for subset in subsets])
    else:
        raise ValueError(f"`by` must be 'row' or 'subset', got {by!r}.")
    return np.flatnonzero(~test), np.flatnonzero(test)


def _check_folds(folds: int):
    if folds < 2:
        raise ValueError(f"A split needs at least two folds, got {folds}.")


def _group_key(text: str) -> str:
    """What is left of a query without case, digits and punctuation; the query itself if that is nothing."""
    return " ".join(re.findall(r"[^\W\d_]+", text.lower())) or text
