"""Queries that come again need no forward pass, and get the same answer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import pipeline

from tests.conftest import QUERIES
from zooter_hf import ZooterRoutingPipeline


@pytest.fixture
def counted(make_router, monkeypatch):
    """A pipeline with a cache, one without, and the numbers of queries in the forward passes of the first."""
    router = make_router(predict_rewards=True)
    cached = ZooterRoutingPipeline(model=router, cache_size=3)
    sizes = []
    forward = cached._forward
    monkeypatch.setattr(
        cached, "_forward", lambda inputs: (sizes.append(len(inputs["input_ids"])), forward(inputs))[1]
    )
    return cached, ZooterRoutingPipeline(model=router), sizes


def same(first, second):
    for one, other in zip(first, second, strict=True):
        assert [each["label"] for each in one] == [each["label"] for each in other]
        for key in ("score", "reward"):
            assert [each[key] for each in one] == pytest.approx([each[key] for each in other], abs=1e-5)


def test_what_is_known_is_not_asked_again(counted):
    cached, plain, sizes = counted
    same([cached(QUERIES[0])], [plain(QUERIES[0])])
    same([cached(QUERIES[0])], [plain(QUERIES[0])])
    assert sizes == [1]
    several = [QUERIES[1], QUERIES[0], QUERIES[1], QUERIES[1]]
    same(cached(several), plain(several))
    assert sizes == [1, 1], "nor is what stands twice in a list"
    same(cached(iter(several)), plain(several))
    assert sizes == [1, 1]


def test_it_is_bounded_and_keeps_the_most_recent(counted):
    cached, _, sizes = counted
    for query in [*QUERIES[:3], QUERIES[0], QUERIES[3]]:
        cached(query)
    assert len(cached._cache) == 3
    sizes.clear()
    cached(QUERIES[0])
    assert sizes == []
    cached(QUERIES[1])
    assert sizes == [1], "the one that was not asked for the longest time is gone"
    cached.clear_cache()
    cached(QUERIES[0])
    assert sizes == [1, 1]


def test_what_changes_the_answer_is_not_passed_over(counted):
    cached, plain, _ = counted
    cached(QUERIES)
    for change in ({"temperature": 3.0}, {"removed_experts": ["math-7b"]}, {"calibration_bias": [1.0, 0.0, -1.0]}):
        for name, value in change.items():
            setattr(cached.model.config, name, value)
        same(cached(QUERIES), plain(QUERIES))
    long = "why is the sky blue " * 30
    results = [cached(long, max_query_tokens=tokens, return_truncation=True) for tokens in (16, 32, 16)]
    assert [each["read_tokens"] for each in results] == [16, 32, 16]
    assert results[0]["query_tokens"] == results[1]["query_tokens"] > 100
    assert results[0]["ranking"] == results[2]["ranking"] != results[1]["ranking"]


@settings(max_examples=25, deadline=None)
@given(calls=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), max_size=5), size=st.integers(1, 4))
def test_any_order_of_calls(make_router, calls, size):
    router = make_router(predict_rewards=True)
    cached, plain = ZooterRoutingPipeline(model=router, cache_size=size), ZooterRoutingPipeline(model=router)
    for call in calls:
        queries = [QUERIES[index] for index in call]
        same(cached(queries), plain(queries))
        assert len(cached._cache) <= size


def test_through_the_library(saved_router):
    route = pipeline("zooter-routing", model=str(saved_router), cache_size=10)
    assert route("Why?") == route("Why?") and len(route._cache) == 1
    with pytest.raises(ValueError, match="cache_size"):
        pipeline("zooter-routing", model=str(saved_router), cache_size=-1)
