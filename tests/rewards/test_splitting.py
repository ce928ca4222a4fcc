"""Splits that do not leak."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zooter_hf import RewardTable
from zooter_hf.rewards.splitting import deal_folds, split_indices


def make_table(texts, subsets):
    rewards = {"a": 1.0, "b": 0.0}
    return RewardTable.from_rows(
        {"query": text, "rewards": rewards, "subset": subset} for text, subset in zip(texts, subsets, strict=True)
    )


words = st.sampled_from(["alpha", "beta 1", "Beta 2", "gamma!", "17", "18", "delta", "x y z"])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(words, st.sampled_from(["s", "t", None])), min_size=2, max_size=60), st.integers(0, 5))
def test_similar_queries_stay_together_and_nothing_is_lost(rows, seed):
    texts, subsets = [text for text, _ in rows], [subset for _, subset in rows]
    if len({text.lower() for text in texts}) < 4 or len(set(texts) - {"beta 1", "Beta 2"}) < 2:
        return
    folds = deal_folds(texts, subsets, 2, seed)
    assert set(folds) == {0, 1}
    for kind in ({"beta 1", "Beta 2"}, {"alpha"}, {"17"}):
        assert len({fold for text, fold in zip(texts, folds, strict=True) if text in kind}) <= 1


def test_every_subset_is_dealt_evenly():
    texts = [f"question {chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(200)]
    subsets = ["large"] * 150 + ["small"] * 50
    folds = deal_folds(texts, subsets, 5, seed=1)
    assert all(np.sum(folds[:150] == fold) == 30 and np.sum(folds[150:] == fold) == 10 for fold in range(5))
    assert not np.array_equal(folds, deal_folds(texts, subsets, 5, seed=2))
    assert np.array_equal(folds, deal_folds(texts, subsets, 5, seed=1))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.8])
def test_the_share_is_kept(share):
    texts = [f"question {chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600)]
    train, test = split_indices(texts, [None] * 600, share, 0, "row")
    assert sorted([*train, *test]) == list(range(600))
    assert abs(len(test) / 600 - share) < 0.01


def test_split_by_subset_keeps_subsets_whole():
    table = make_table([f"word {chr(97 + i)}" for i in range(20)], [f"s{i % 5}" for i in range(20)])
    train, test = table.split(0.4, by="subset", seed=3)
    assert not set(train.subsets) & set(test.subsets)
    assert len(set(test.subsets)) == 2 and len(train) + len(test) == 20


def test_folds_by_subset_keep_subsets_whole():
    table = make_table([f"word {chr(97 + i)}" for i in range(20)], [f"s{i % 5}" for i in range(20)])
    folds = table.folds(3, 1, by="subset")
    assert set(folds) == {0, 1, 2}
    assert all(len({folds[i] for i in range(20) if i % 5 == subset}) == 1 for subset in range(5))
    assert not np.array_equal(folds, table.folds(3, 2, by="subset"))


def test_errors():
    table = make_table(["one", "two", "three"], ["s"] * 3)
    with pytest.raises(ValueError, match="at least two subsets"):
        table.split(0.5, by="subset")
    with pytest.raises(ValueError, match="between 0 and 1, got 2"):
        table.split(2)
    with pytest.raises(ValueError, match="'row' or 'subset', got 'x'"):
        table.split(0.5, by="x")
    with pytest.raises(ValueError, match="3 queries that differ in more.*too few for 5 folds"):
        table.folds(5)
    with pytest.raises(ValueError, match="1 subsets, too few for 2 folds"):
        table.folds(2, by="subset")
    with pytest.raises(ValueError, match="'row' or 'subset', got 'x'"):
        table.folds(2, by="x")
