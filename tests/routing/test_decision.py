import dataclasses
import json

import pytest

from tests.conftest import EXPERTS
from zooter_hf import Decision
from zooter_hf.routing import QueryFacts


RANKING = [
    {"label": "code-9b", "score": 0.5},
    {"label": "math-7b", "score": 0.3},
    {"label": "chat-70b", "score": 0.2},
]


def decide(**fields):
    return Decision.from_ranking(RANKING, EXPERTS, router="you/router", **fields)


def test_a_decision_says_everything():
    decision = decide(revision="abc", query=QueryFacts(tokens=1000), policy={"name": "argmax", "answer_tokens": 500})
    assert decision.expert == "code-9b"
    assert decision.margin == pytest.approx(0.2)
    assert [expert.name for expert in decision.ranking] == ["code-9b", "math-7b", "chat-70b"]
    # 1000 tokens at $0.3 and 500 at $0.6 per million.
    assert decision.ranking[0].price == pytest.approx(0.0006)
    assert decision.ranking[2].price is None, "no price is not a price of zero"
    assert (decision.policy, decision.router, decision.revision) == ("argmax", "you/router", "abc")
    assert "3 experts" in decision.reason
    assert json.loads(json.dumps(decision.to_dict()))["ranking"][1]["name"] == "math-7b"


def test_a_decision_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        decide().expert = "math-7b"


def test_unknown_lengths_give_no_price():
    assert decide().ranking[0].price is None
    assert decide(query=QueryFacts(tokens=5)).ranking[2].price is None


def test_one_expert_has_no_runner_up():
    assert Decision.from_ranking(RANKING[:1], EXPERTS, router="r").margin == pytest.approx(0.5)


@pytest.mark.parametrize(("ranking", "message"), [([], "empty"), ([{"label": "new", "score": 1.0}], "new.*code-9b")])
def test_bad_rankings(ranking, message):
    with pytest.raises(ValueError, match=message):
        Decision.from_ranking(ranking, EXPERTS, router="r")
