"""A few queries of every tag."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zooter_hf.rewards.query_sets import QueryItem, sample_per_tag


tags = st.lists(st.lists(st.sampled_from("abcd"), max_size=3, unique=True), min_size=1, max_size=40)


@settings(deadline=None, max_examples=100)
@given(tags, st.integers(1, 6), st.integers(0, 3))
def test_every_tag_is_served(tags, k, seed):
    items = [QueryItem(f"q{row}", tags=tuple(of_query)) for row, of_query in enumerate(tags)]
    if not any(tags):
        with pytest.raises(ValueError, match="No query has a tag"):
            sample_per_tag(items, k, seed)
        return
    chosen = sample_per_tag(items, k, seed)
    assert chosen == sorted(set(chosen)) == sample_per_tag(items, k, seed)
    there = Counter(tag for of_query in tags for tag in of_query)
    drawn = Counter(tag for row in chosen for tag in tags[row])
    assert all(drawn[tag] >= min(k, count) for tag, count in there.items())
    assert all(tags[row] for row in chosen)
    # No query too many: each was needed for one of its tags when it was drawn.
    assert len(chosen) <= sum(min(k, count) for count in there.values())


def test_the_seed_counts():
    items = [QueryItem(f"q{row}", tags=("t",)) for row in range(50)]
    assert sample_per_tag(items, 5, seed=0) != sample_per_tag(items, 5, seed=1)
    with pytest.raises(ValueError, match="must be positive"):
        sample_per_tag(items, 0)
