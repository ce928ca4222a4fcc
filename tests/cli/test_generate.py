"""`zooter generate`: one query, a file, a chat."""

import json

import pytest

from tests.chat_server import ChatServer
from tests.ensemble.conftest import NAMES, rank
from zooter_hf import ExpertSpec


@pytest.fixture
def server():
    models = {name: lambda messages, name=name: f"{name} heard {messages[-1]['content']}" for name in NAMES}
    with ChatServer(models=models) as server:
        yield server


@pytest.fixture
def folder(make_router, server, tmp_path):
    """A router whose experts stand behind a server."""
    router = make_router(
        experts=[
            ExpertSpec(
                name,
                backend="endpoint",
                model=name,
                base_url=server.base_url,
                options={"retries": 0},
                input_price=1.0,
                output_price=1.0,
            )
            for name in NAMES
        ]
    )
    rank(router, NAMES)
    router.save_pretrained(tmp_path / "router")
    return tmp_path / "router"


def test_one_query_is_streamed(zooter, folder, server):
    result = zooter("generate", "Why?", "-m", folder, "--max-new-tokens", 2, "--system-prompt", "Be brief.")
    assert result.stdout == "alpha: alpha heard\n"
    (request,) = server.requests
    assert request.body["stream"] and request.body["max_tokens"] == 2
    assert request.body["messages"][0] == {"role": "system", "content": "Be brief."}


def test_a_file(zooter, folder, tmp_path):
    (tmp_path / "queries.jsonl").write_text('"Why?"\n[{"role": "user", "content": "Who?"}]\n')
    result = zooter("generate", "-f", tmp_path / "queries.jsonl", "-m", folder, "--json", "--batch-size", 1)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["alpha heard Why?", "alpha heard Who?"]
    assert rows[0]["query"] == "Why?" and rows[0]["decision"]["ranking"][1]["name"] == "beta"
    assert rows[0]["usage"]["output_tokens"] == 3 and rows[0]["price"] == pytest.approx(4e-6)
    assert (
        "alpha: alpha heard Why?\n\nalpha: alpha heard Who?" in zooter("generate", "Why?", "Who?", "-m", folder).stdout
    )
    assert "alpha heard Why?" in zooter("generate", "-m", folder, stdin="Why?\n").stdout
    assert "No queries" in zooter("generate", "-m", folder, stdin="\n").stderr


def test_fallbacks_and_failures_are_told(zooter, folder, server):
    server.inject(500, 1)
    result = zooter("generate", "Why?", "-m", folder)
    assert result.stdout == "beta: beta heard Why?\n" and "alpha did not answer" in result.stderr
    server.inject(500, None, where="poison")
    result = zooter("generate", "Why?", "poison", "-m", folder, check=False)
    assert "alpha: alpha heard Why?" in result.stdout and "1 of 2 queries were not answered" in result.stderr
    result = zooter("generate", "poison", "-m", folder, "--fallback", "none", check=False)
    assert "HTTP 500" in result.stderr and "Traceback" not in result.stderr
    assert zooter("generate", "Why?", "-m", folder, "--expert", "gamma").stdout.startswith("gamma: ")


def test_experts_of_ones_own(zooter, folder, server, tmp_path):
    (tmp_path / "experts.yaml").write_text(
        f"- {{name: alpha, backend: endpoint, model: gamma, base_url: '{server.base_url}'}}"
    )
    assert zooter("generate", "Why?", "-m", folder, "-x", "experts.yaml").stdout == "alpha: gamma heard Why?\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Why?", "-f", "x"), "both"),
        (("-f", "missing.txt"), "missing.txt"),
        (("Why?", "-x", "missing.yaml"), "missing.yaml"),
        (("Why?", "--expert", "delta"), "no expert 'delta'"),
        (("Why?", "-m", "./nowhere"), "not a folder"),
        ((" ",), "empty"),
    ],
)
def test_clumsy(zooter, folder, arguments, message):
    arguments = arguments if "-m" in arguments else (*arguments, "-m", folder)
    result = zooter("generate", *arguments, check=False)
    assert message in result.stderr and "Traceback" not in result.stderr


def test_a_router_without_back_ends(zooter, make_router, tmp_path):
    make_router(experts=NAMES).save_pretrained(tmp_path / "bare")
    result = zooter("generate", "Why?", "-m", tmp_path / "bare", check=False)
    assert "['alpha', 'beta', 'gamma'] have no `backend`" in result.stderr


def test_a_chat(zooter, folder, server):
    said = ["Write a function.", "/why", "/help", "", "now commit it", "poison", "/new", "Why?", "/quit"]
    server.inject(500, None, where="poison")
    out = zooter("generate", "-m", folder, stdin="\n".join(said), terminal=True).stdout
    assert "alpha: alpha heard Write a function." in out
    assert "50.0%  alpha" in out and "most probable of 3 experts" in out
    assert "/new begins another" in out
    assert "alpha: alpha heard now commit it" in out and "No expert answered" in out
    bodies = [request.body["messages"] for request in server.requests]
    assert [len(messages) for messages in bodies] == [1, 3, 5, 5, 5, 1]
    assert bodies[1][1] == {"role": "assistant", "content": "alpha heard Write a function."}
    # The end of the input ends the chat.
    assert "alpha heard Why?" in zooter("generate", "-m", folder, stdin="Why?\n", terminal=True).stdout
    assert "not written as JSON" in zooter("generate", "-m", folder, "--json", terminal=True, check=False).stderr
