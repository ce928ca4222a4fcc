"""Queries in common with an evaluation set."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zooter_hf.rewards.query_sets import QueryItem, decontaminate


def test_six_words_in_a_row_are_too_many():
    items = [
        QueryItem("Tell me: how many legs does a SPIDER have, and why?"),
        QueryItem("how many legs does a beetle have"),
        QueryItem([{"role": "user", "content": "Well, how many legs does a spider have?"}]),
        QueryItem("legs of spiders"),
    ]
    kept, left_out = decontaminate(items, {"exam": ["How many legs does a spider have"], "other": ["x"]})
    assert kept == [items[1], items[3]]
    assert [each.row for each in left_out] == [0, 2]
    assert left_out[0].shared == "how many legs does a spider" and left_out[0].source == "exam"


def test_parts_of_a_message_are_read():
    parts = [{"type": "text", "text": "Well, how many legs"}, {"type": "text", "text": "does a spider have?"}]
    item = QueryItem([{"role": "user", "content": parts}])
    assert decontaminate([item], {"exam": ["How many legs does a spider have"]})[0] == []


def test_short_queries_are_compared_whole():
    items = [QueryItem("Why not?"), QueryItem("Why not now?")]
    kept, left_out = decontaminate(items, {"exam": ["why, not", "when"]})
    assert kept == [items[1]] and left_out[0].shared == "why not"


def test_scripts_without_spaces():
    kept, left_out = decontaminate(
        [QueryItem("请问地球的直径是多少"), QueryItem("今天天气怎么样")], {"e": ["地球的直径是多少公里"]}
    )
    assert len(kept) == 1 and left_out[0].row == 0


words = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), min_size=1, max_size=12)


@settings(deadline=None, max_examples=100)
@given(st.lists(words, min_size=1, max_size=6), st.lists(words, max_size=4), st.integers(1, 7))
def test_it_is_what_the_definition_says(queries, exam, n):
    """Against the definition, written down by looking at all pairs of places."""

    def grams(ws):
        return {tuple(ws[i : i + n]) for i in range(len(ws)) if i + n <= len(ws)} if len(ws) >= n else {tuple(ws)}

    items = [QueryItem(" ".join(ws)) for ws in queries]
    kept, left_out = decontaminate(items, {"exam": [" ".join(ws) for ws in exam]}, n)
    bad = [any(grams(ws) & grams(other) for other in exam) for ws in queries]
    assert [each.row for each in left_out] == [row for row, is_bad in enumerate(bad) if is_bad]
    assert kept == [item for item, is_bad in zip(items, bad, strict=True) if not is_bad]


def test_errors():
    with pytest.raises(ValueError, match="must be positive, got 0"):
        decontaminate([QueryItem("x")], {}, 0)
