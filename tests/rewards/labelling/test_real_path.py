"""The run on back ends of every kind at once: tiny models, an adapter, and a server that fails in all its ways."""

import asyncio

import pytest

from tests.chat_server import ChatServer
from tests.experts.tiny_models import save_adapter, save_model
from tests.rewards.labelling.fakes import length_of_answer
from zooter_hf import ExpertSpec
from zooter_hf.experts import EndpointExpert, GenerationSettings
from zooter_hf.experts.retry import Clock
from zooter_hf.rewards.labelling import label
from zooter_hf.rewards.query_sets import QueryItem
from zooter_hf.rewards.teachers import PairwiseJudge


QUERIES = [f"{word} {number}" for word in ("sum", "river", "list") for number in ("one", "two", "three", "four")]


class NoWaiting(Clock):
    """Waits of no length."""

    async def sleep(self, seconds):
        await asyncio.sleep(0)


@pytest.fixture
def local(tmp_path):
    save_model(tmp_path / "small", seed=0)
    save_adapter(tmp_path / "tuned", tmp_path / "small", seed=1)
    return [
        {"name": "small", "backend": "transformers", "model": str(tmp_path / "small")},
        {
            "name": "tuned",
            "backend": "adapter",
            "model": str(tmp_path / "tuned"),
            "options": {"base_model": str(tmp_path / "small")},
        },
    ]


def test_a_server_that_fails_in_all_its_ways(tmp_path, local):
    with ChatServer() as server:
        remote = ExpertSpec("remote", model="echo", backend="endpoint", base_url=server.base_url)
        server.inject(429, headers={"Retry-After": "1"})
        server.inject(500, 2)
        server.inject("drop")
        server.inject("slow", seconds=0.2)
        server.inject(200, body="no json")
        server.inject(200, body={"choices": []})
        server.inject(400, None, where="river two")
        arguments = {"output": tmp_path / "t", "settings": GenerationSettings(max_new_tokens=4)}
        labelling = label(QUERIES, [*local, EndpointExpert(remote, clock=NoWaiting())], length_of_answer, **arguments)
        table, place = labelling.table, QUERIES.index("river two")
        assert table.rewards.isnan().nonzero().tolist() == [[place, 2]]
        assert [row["responses"]["remote"] for row in table] == [q if q != "river two" else None for q in QUERIES]
        assert labelling.summary.experts[2].failed == 1 and "400" in labelling.summary.experts[2].error
        assert any(row["responses"]["small"] != row["responses"]["tuned"] for row in table)
        server.heal()
        asked = len(server.requests)
        labelling = label(QUERIES, [*local, EndpointExpert(remote, clock=NoWaiting())], length_of_answer, **arguments)
        assert not labelling.table.rewards.isnan().any() and len(server.requests) == asked + 1


def test_a_judge_behind_a_server(tmp_path):
    """It prefers the longer answer; each pair is asked for in both orders."""

    def judge(messages):
        text = messages[-1]["content"]
        return "A" if text.index("long answer") < text.index("short!") else "B"

    models = {"judge": judge, "a": lambda messages: "a very long answer", "b": lambda messages: "short!"}
    with ChatServer(models) as server:

        def remote(name):
            return EndpointExpert(ExpertSpec(name, model=name, backend="endpoint", base_url=server.base_url))

        items = [QueryItem(query) for query in QUERIES[:3]]
        labelling = label(items, [remote("a"), remote("b")], PairwiseJudge(remote("judge")), output=tmp_path / "t")
    assert labelling.table.rewards.tolist() == [[1.0, 0.0]] * 3
