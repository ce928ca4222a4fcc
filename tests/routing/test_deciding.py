"""Policies stored in a router, changed at call time."""

import pytest

from tests.conftest import QUERIES
from zooter_hf import ZooterForRouting, ZooterRoutingPipeline
from zooter_hf.routing import ArgmaxPolicy, decide


@pytest.fixture
def routing(make_router):
    return ZooterRoutingPipeline(model=make_router())


def chosen(routing, policy=None):
    return [each.decision.expert for each in decide(routing, QUERIES, policy=policy)]


def test_the_stored_policy_holds_until_another_is_given(routing, tmp_path):
    usual = chosen(routing)
    favourite = max(set(usual), key=usual.count)
    routing.model.config.policy = ArgmaxPolicy(exclude=(favourite,)).to_dict()
    routing.model.save_pretrained(tmp_path / "router")
    loaded = ZooterRoutingPipeline(model=ZooterForRouting.from_pretrained(tmp_path / "router"))
    assert favourite not in chosen(loaded)
    assert chosen(loaded, "argmax") == usual
    (other,) = {*loaded.model.expert_names} - {favourite, chosen(loaded)[0]}
    assert set(chosen(loaded, {"exclude": [favourite, chosen(loaded)[0]]})) == {other}
    assert [each[0]["label"] for each in loaded(QUERIES, top_k=1)] == usual, "rankings do not depend on it"


def test_a_policy_that_does_not_fit_is_found_before_the_router_runs(routing):
    with pytest.raises(ValueError, match="giant"):
        decide(routing, QUERIES, policy={"exclude": ["giant"]})


def test_a_stream_is_answered_as_it_comes(routing):
    read = []

    def queries():
        for query in QUERIES:
            read.append(query)
            yield query

    decisions = decide(routing, queries(), batch_size=1)
    next(decisions)
    assert len(read) < len(QUERIES)
    assert len(list(decisions)) == len(QUERIES) - 1
