"""Queries go to the expert that the router chooses; nothing about that is hidden."""

import asyncio
import json

import pytest

from tests.conftest import QUERIES
from tests.ensemble.conftest import NAMES
from zooter_hf import ExpertSpec, ZooterEnsemble
from zooter_hf.ensemble import EnsembleError
from zooter_hf.experts import ExpertError, GenerationSettings
from zooter_hf.modeling import ZooterRoutingPipeline
from zooter_hf.routing import ArgmaxPolicy, Choice, RoutingPolicy


def test_every_query_goes_to_the_most_probable_expert_and_comes_back_in_its_place(make_ensemble, played):
    ensemble = make_ensemble()
    routing = ZooterRoutingPipeline(model=ensemble.router)
    best = [ranking[0]["label"] for ranking in routing(QUERIES)]
    assert len(set(best)) > 1  # or the test would show nothing
    replies = ensemble.generate(QUERIES)
    assert [reply.text for reply in replies] == [f"{name}: {q}" for name, q in zip(best, QUERIES, strict=True)]
    assert [reply.expert for reply in replies] == best
    # One call for each expert, with all of its queries.
    assert sorted(len(expert.asked) for expert in played.values()) == sorted(int(n in best) for n in NAMES)


def test_a_reply_says_everything(make_ensemble):
    ensemble = make_ensemble(prefer=["beta", "alpha", "gamma"])
    reply = ensemble.generate("Why?")
    assert (reply.text, reply.expert, reply.error) == ("beta: Why?", "beta", None)
    decision = reply.decision
    assert decision.expert == "beta" and decision.policy == "argmax" and "3 experts" in decision.reason
    assert [each.name for each in decision.ranking] == ["beta", "alpha", "gamma"]
    assert [each.probability for each in decision.ranking] == pytest.approx([0.5, 0.3, 0.2])
    assert decision.margin == pytest.approx(0.2)
    assert decision.alternatives == ("alpha", "gamma") and decision.fallbacks == ()
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (10, 5)
    assert reply.price == pytest.approx((10 * 1.0 + 5 * 2.0) / 1e6)
    assert reply.seconds_routing > 0 and reply.seconds_generating > 0
    assert reply.query_tokens == reply.read_tokens > 2
    assert json.loads(json.dumps(reply.to_dict()))["decision"]["ranking"][0]["name"] == "beta"


def test_settings_reach_the_expert(make_ensemble, played):
    ensemble = make_ensemble(prefer=NAMES, generation={"temperature": 0.5, "max_new_tokens": 9})
    ensemble.generate("Why?", max_new_tokens=3, stop=("\n",))
    assert played["alpha"].settings == [GenerationSettings(max_new_tokens=3, temperature=0.5, stop=("\n",))]


def test_chats_reach_the_expert_untouched_and_the_router_reads_their_text(make_ensemble, played):
    ensemble = make_ensemble(prefer=NAMES)
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": "x.png"}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "a cat"},
    ]
    ensemble.generate(chat)
    assert played["alpha"].asked == [[chat]]
    ensemble.generate({"messages": chat})
    assert played["alpha"].asked[1] == [chat]


def test_a_list_of_chats_is_a_batch(make_ensemble):
    chats = [[{"role": "user", "content": query}] for query in QUERIES]
    replies = make_ensemble(prefer=NAMES).generate(chats)
    assert [reply.text for reply in replies] == [f"alpha: {query}" for query in QUERIES]
    assert make_ensemble().generate([]) == []


def test_the_form_of_the_text_generation_pipeline(make_ensemble):
    ensemble = make_ensemble(prefer=NAMES)
    assert ensemble("Why?", return_full_text=False) == [{"generated_text": "alpha: Why?", "expert": "alpha"}]
    assert ensemble("Why?", max_new_tokens=3)[0]["generated_text"] == "Why?alpha: Why?"
    chat = [{"role": "user", "content": "Why?"}]
    (record,) = ensemble(chat)
    assert record["generated_text"] == [*chat, {"role": "assistant", "content": "alpha: Why?"}]
    both = ensemble(["Why?", "Who?"], return_full_text=False)
    assert [records[0]["generated_text"] for records in both] == ["alpha: Why?", "alpha: Who?"]


class Last(RoutingPolicy):
    """Takes the least probable expert."""

    name = "last"

    def choose_between(self, candidates, query):
        return Choice(tuple(expert.name for expert in reversed(candidates)), "the last shall be first")


def test_policies(make_ensemble):
    ensemble = make_ensemble(prefer=NAMES)
    reply = ensemble.generate("Why?", policy=Last())
    assert reply.expert == "gamma" and reply.decision.policy == "last"
    assert reply.decision.margin == pytest.approx(-0.3) and reply.decision.alternatives == ("beta", "alpha")
    assert ensemble.generate("Why?", policy="argmax").expert == "alpha"
    assert ensemble.generate("Why?", policy=ArgmaxPolicy()).expert == "alpha"
    with pytest.raises(ValueError, match=r"no policy 'best'.*argmax"):
        ensemble.generate("Why?", policy="best")


def test_an_expert_asked_for_by_name(make_ensemble, played):
    ensemble = make_ensemble(prefer=NAMES)
    reply = ensemble.generate("Why?", expert="gamma")
    assert reply.expert == "gamma" and reply.decision.policy == "given"
    assert reply.decision.ranking[0].name == "alpha"  # what the router thinks of it is still there
    played["gamma"].fault = ExpertError("gone")
    with pytest.raises(EnsembleError, match="gone"):
        ensemble.generate("Why?", expert="gamma")
    with pytest.raises(ValueError, match=r"no expert 'delta'.*alpha"):
        ensemble.generate("Why?", expert="delta")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"queries": ""}, ValueError, "empty"),
        ({"queries": ["Why?", " "]}, ValueError, "Query 1"),
        ({"queries": 3}, TypeError, "string or a chat"),
        ({"queries": "Why?", "max_tokens": 3}, TypeError, "max_tokens.*max_new_tokens"),
        ({"queries": "Why?", "max_new_tokens": 0}, ValueError, "max_new_tokens"),
        ({"queries": "Why?", "fallback": "all"}, ValueError, "fallback.*next"),
        ({"queries": ["Why?", "Who?"], "conversation": "one"}, ValueError, "each of the 2"),
        ({"queries": ["Why?"], "conversation": [3]}, ValueError, "string, got 3"),
    ],
)
def test_bad_arguments(make_ensemble, played, arguments, error, message):
    with pytest.raises(error, match=message):
        make_ensemble().generate(**arguments)
    assert not any(expert.asked for expert in played.values())


def test_streaming(make_ensemble):
    ensemble = make_ensemble(prefer=["beta", "alpha", "gamma"])
    with ensemble.stream("Why?") as stream:
        assert stream.decision.expert == "beta" and stream.expert is None
        with pytest.raises(ValueError, match="end"):
            _ = stream.reply
        assert next(stream) == "beta:" and stream.expert == "beta"
        assert list(stream) == [" ", "Why?"]
    reply = stream.reply
    assert (reply.text, reply.expert, reply.usage.output_tokens) == ("beta: Why?", "beta", 5)
    assert reply.decision.ranking[0].name == "beta" and reply.seconds_generating > 0
    with pytest.raises(TypeError, match="one query"):
        ensemble.stream(["Why?", "Who?"])


def test_a_stream_that_is_left_early_gives_the_expert_back(make_ensemble):
    ensemble = make_ensemble(prefer=NAMES, max_loaded=1)
    with ensemble.stream("Why?") as stream:
        next(stream)
    assert ensemble.generate("Why?", expert="beta").text == "beta: Why?"
    assert ensemble.loaded == ["beta"]
    assert ensemble.generate("Why?").expert == "alpha"  # which was not to blame


def test_asyncio(make_ensemble):
    ensemble = make_ensemble(prefer=NAMES)

    async def main():
        replies = await asyncio.gather(*(ensemble.agenerate(f"Why {n}?") for n in range(20)))
        assert [reply.text for reply in replies] == [f"alpha: Why {n}?" for n in range(20)]

        async def read(n):
            stream = ensemble.astream(f"Who {n}?")
            pieces = [piece async for piece in stream]
            return "".join(pieces), stream.reply.text, stream.decision.expert

        streamed = await asyncio.gather(*(read(n) for n in range(20)))
        assert streamed == [(f"alpha: Who {n}?", f"alpha: Who {n}?", "alpha") for n in range(20)]
        async with ensemble.astream("Why?") as stream:
            assert stream.text == "" and stream.decision is None
            await anext(stream)
        assert stream.text == "alpha:"
        with pytest.raises(ValueError, match="empty"):
            await ensemble.agenerate("")
        with pytest.raises(ValueError, match="empty"):
            await anext(ensemble.astream(""))

    asyncio.run(main())


class TestMembers:
    def test_specs_in_place_of_those_of_the_router(self, make_router, played):
        router = make_router(experts=NAMES)
        experts = [
            {"name": "alpha", "backend": "endpoint", "model": "a", "base_url": "http://127.0.0.1:9/v1"},
            ExpertSpec("beta", backend="endpoint", model="b", base_url="http://127.0.0.1:9/v1", input_price=3.0),
            played["gamma"],
        ]
        ensemble = ZooterEnsemble(router, experts)
        assert ensemble.experts["gamma"] is played["gamma"]
        assert [spec.name for spec in router.config.experts] == NAMES
        assert router.config.experts[1].input_price == 3.0
        assert ensemble.members.specs[0].options == {}  # how soon it is given up here is nobody's business

    def test_from_a_file(self, make_router, tmp_path):
        path = tmp_path / "experts.yaml"
        path.write_text(
            "\n".join(f"- {{name: {name}, backend: endpoint, model: m, base_url: 'http://h/v1'}}" for name in NAMES)
        )
        assert list(ZooterEnsemble(make_router(experts=NAMES), path).experts) == NAMES

    def test_one_that_the_router_does_not_know(self, make_ensemble, played):
        router_names = ["alpha", "beta"]
        ensemble = make_ensemble(names=router_names, prefer=router_names, probabilities=(0.7, 0.3))
        assert ensemble.generate("Why?", expert="gamma").text == "gamma: Why?"
        reply = ensemble.generate("Why?")
        assert reply.decision.alternatives == ("beta", "gamma") and len(reply.decision.ranking) == 2
        played["alpha"].fault = played["beta"].fault = ExpertError("gone")
        assert ensemble.generate("Why?").expert == "gamma"

    def test_experts_that_cannot_answer(self, make_router, played):
        with pytest.raises(ValueError, match=r"\['beta', 'gamma'\].*no `backend`.*on_missing"):
            ZooterEnsemble(make_router(experts=NAMES), {"alpha": played["alpha"]})
        ensemble = ZooterEnsemble(make_router(experts=NAMES), {"alpha": played["alpha"]}, on_missing="skip")
        for reply in ensemble.generate(QUERIES):
            assert reply.expert == "alpha" and len(reply.decision.ranking) == 3
            assert "2 of the router's 3 cannot answer" in reply.decision.reason
        with pytest.raises(ValueError, match="no `backend`"):
            ZooterEnsemble(make_router(experts=NAMES), on_missing="skip")
        with pytest.raises(ValueError, match="on_missing"):
            ZooterEnsemble(make_router(experts=NAMES), on_missing="ignore")

    @pytest.mark.parametrize(
        ("experts", "error", "message"),
        [
            ({"alpha": 3}, TypeError, "'alpha' is an Expert"),
            ([3], TypeError, "got int"),
            ([ExpertSpec("a"), ExpertSpec("a")], ValueError, "given twice"),
            ({"alpha": {"backend": "vllm"}}, ValueError, "backend"),
            ("missing.yaml", OSError, "missing.yaml"),
        ],
    )
    def test_what_is_no_expert(self, make_router, experts, error, message):
        with pytest.raises(error, match=message):
            ZooterEnsemble(make_router(experts=NAMES), experts)

    def test_a_mapping_names_them(self, make_router, played):
        with pytest.raises(ValueError, match="'beta' says of itself that it is 'alpha'"):
            ZooterEnsemble(make_router(experts=NAMES), {"beta": played["alpha"]})
        spec = ExpertSpec("other-name", backend="endpoint", model="m", base_url="http://h/v1")
        ensemble = ZooterEnsemble(make_router(experts=NAMES), {**played, "beta": spec})
        assert ensemble.experts["beta"].spec.name == "beta"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"fallback": "always"}, ValueError, "fallback"),
        ({"max_fallbacks": -1}, ValueError, "max_fallbacks"),
        ({"cooldown_after": 0}, ValueError, "cooldown_after"),
        ({"cooldown": -1.0}, ValueError, "cooldown"),
        ({"sticky_margin": 2.0}, ValueError, "sticky_margin"),
        ({"sticky": "yes"}, ValueError, "sticky"),
        ({"policy": "best"}, ValueError, "policy"),
        ({"max_loaded": 0}, ValueError, "max_loaded"),
        ({"max_bytes": 1.5}, ValueError, "max_bytes"),
        ({"stick": True}, TypeError, "stick.*sticky"),
        ({"generation": {"max_tokens": 3}}, TypeError, "max_tokens"),
    ],
)
def test_bad_settings(make_ensemble, changes, error, message):
    with pytest.raises(error, match=message):
        make_ensemble(**changes)
