"""A conversation stays with its expert, unless another leads by a margin."""

import pytest

from tests.ensemble.conftest import NAMES, rank
from zooter_hf.ensemble.conversations import Conversations
from zooter_hf.experts import ExpertError


def turn(role, content):
    return {"role": role, "content": content}


def go_on(chat, reply, query):
    return [*chat, turn("assistant", reply.text), turn("user", query)]


CODING = [turn("user", "Write a function that sorts a list.")]


def test_not_by_default(make_ensemble):
    ensemble = make_ensemble(prefer=NAMES)
    reply = ensemble.generate(CODING)
    rank(ensemble.router, ["beta", "alpha", "gamma"], (0.41, 0.4, 0.19))
    assert ensemble.generate(go_on(CODING, reply, "now commit it")).expert == "beta"


def test_it_stays_and_says_why(make_ensemble):
    ensemble = make_ensemble(prefer=NAMES, sticky=True, sticky_margin=0.1)
    reply = ensemble.generate(CODING)
    chat = go_on(CODING, reply, "now commit it")
    rank(ensemble.router, ["beta", "alpha", "gamma"], (0.45, 0.4, 0.15))
    second = ensemble.generate(chat)
    assert second.expert == second.decision.expert == "alpha"
    assert "answered last" in second.decision.reason and "beta leads by 0.05" in second.decision.reason
    assert second.decision.margin == pytest.approx(-0.05)
    assert second.decision.alternatives == ("beta", "gamma")
    assert second.decision.ranking[0].name == "beta"
    # Another conversation is none of its business, nor is this one where it is said so.
    assert ensemble.generate("now commit it").expert == "beta"
    assert ensemble.generate(chat, sticky=False).expert == "beta"


def test_a_clear_lead_moves_it_and_there_it_stays(make_ensemble):
    ensemble = make_ensemble(prefer=NAMES, sticky=True, sticky_margin=0.1)
    chat = go_on(CODING, ensemble.generate(CODING), "And now a poem.")
    rank(ensemble.router, ["beta", "alpha", "gamma"], (0.6, 0.3, 0.1))
    second = ensemble.generate(chat)
    assert second.expert == "beta" and "leads alpha" in second.decision.reason
    rank(ensemble.router, ["alpha", "beta", "gamma"], (0.5, 0.45, 0.05))
    assert ensemble.generate(go_on(chat, second, "Another.")).expert == "beta"


def test_with_whom_it_is_is_whoever_answered(make_ensemble, played):
    ensemble = make_ensemble(prefer=NAMES, sticky=True, sticky_margin=0.5)
    played["alpha"].fault = ExpertError("down")
    reply = ensemble.generate(CODING)
    played["alpha"].fault = None
    assert ensemble.generate(go_on(CODING, reply, "now commit it")).expert == "beta"


def test_by_name(make_ensemble):
    ensemble = make_ensemble(prefer=NAMES, sticky=True, sticky_margin=0.3)
    ensemble.generate("Write a function.", conversation="mine")
    rank(ensemble.router, ["beta", "alpha", "gamma"], (0.5, 0.4, 0.1))
    replies = ensemble.generate(["now commit it"] * 3, conversation=["mine", "yours", None])
    assert [reply.expert for reply in replies] == ["alpha", "beta", "beta"]
    assert "".join(ensemble.stream("go on", conversation="mine")) == "alpha: go on"


def test_streams_count_as_well(make_ensemble):
    ensemble = make_ensemble(prefer=NAMES, sticky=True, sticky_margin=0.3)
    stream = ensemble.stream(CODING)
    list(stream)
    rank(ensemble.router, ["beta", "alpha", "gamma"], (0.5, 0.4, 0.1))
    assert ensemble.generate(go_on(CODING, stream.reply, "now commit it")).expert == "alpha"


def test_remembered_by_what_was_said():
    conversations = Conversations()
    conversations.remember(CODING, "done", "alpha")
    follow_up = [*CODING, turn("assistant", " done\n"), turn("user", "and now?")]
    assert conversations.expert_of(follow_up) == "alpha"
    assert conversations.expert_of(CODING) is None
    assert conversations.expert_of([*CODING, turn("assistant", "not done"), turn("user", "and now?")]) is None
    tools = [*CODING, turn("assistant", "done"), turn("tool", "42")]
    assert conversations.expert_of(tools) == "alpha"
    called = [*CODING, {"role": "assistant", "tool_calls": []}, turn("tool", "42")]
    assert conversations.expert_of(called) is None


def test_only_so_many_are_remembered():
    conversations = Conversations(limit=2)
    for number in range(3):
        conversations.remember("Why?", "so", f"expert-{number}", f"conversation-{number}")
    assert len(conversations) == 2
    assert conversations.expert_of("Why?", "conversation-0") is None
    assert conversations.expert_of("Why?", "conversation-2") == "expert-2"
