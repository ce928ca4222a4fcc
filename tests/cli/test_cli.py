"""The command line as a user types it."""

import json
import subprocess
import sys

import pytest

from tests.conftest import QUERIES


def test_the_installed_command_exits_with_a_message_and_no_traceback(saved_router):
    command = [sys.executable, "-c", "from zooter_hf.cli import main; main()", "route", "-m", str(saved_router)]
    good = subprocess.run([*command, "--json", QUERIES[0]], capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["query"] == QUERIES[0]
    assert "Loading weights" not in good.stderr
    bad = subprocess.run([*command, ""], capture_output=True, text=True)
    assert bad.returncode == 1
    assert bad.stderr.startswith("zooter: error: Query 0 of the batch: the query is empty")
    assert "Traceback" not in bad.stderr


def test_route_prints_a_table(zooter, saved_router):
    out = zooter("route", "-m", saved_router, *QUERIES[:2]).stdout
    assert "Prove that the square root" in out
    assert "runner-up" in out
    assert "%" in out
    assert "$ / 1000" in out


def test_route_writes_json_lines_with_the_whole_decision(zooter, saved_router):
    out = zooter("route", "-m", saved_router, "--json", "--answer-tokens", "100", *QUERIES).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["query"] for row in rows] == QUERIES
    for row in rows:
        decision = row["decision"]
        assert decision["expert"] == decision["ranking"][0]["name"]
        assert sum(expert["probability"] for expert in decision["ranking"]) == pytest.approx(1, abs=1e-5)
        assert decision["router"] == str(saved_router)
        assert row["query_tokens"] == row["read_tokens"] > 0
        prices = {expert["name"]: expert["price"] for expert in decision["ranking"]}
        assert prices["math-7b"] == pytest.approx((0.1 * row["query_tokens"] + 0.2 * 100) / 1e6)
        assert prices["chat-70b"] is None


def test_arguments_files_and_standard_input_agree(zooter, saved_router, tmp_path):
    (tmp_path / "q.txt").write_text("\n\n".join(QUERIES), encoding="utf-8")
    chats = [[{"role": "user", "content": query}] for query in QUERIES[:2]]
    lines = [
        json.dumps(QUERIES[2]),
        json.dumps({"query": QUERIES[3]}),
        json.dumps({"messages": [{"role": "user", "content": QUERIES[4]}]}),
    ]
    (tmp_path / "q.jsonl").write_text("\n".join([*map(json.dumps, chats), *lines]), encoding="utf-8")
    ways = [
        zooter("route", "-m", saved_router, "--json", *QUERIES),
        zooter("route", "-m", saved_router, "--json", "--file", "q.txt"),
        zooter("route", "-m", saved_router, "--json", "--file", "q.jsonl"),
        zooter("route", "-m", saved_router, "--json", stdin="\n".join(QUERIES)),
        zooter("route", "-m", saved_router, "--json", "--jsonl", stdin=(tmp_path / "q.jsonl").read_text()),
    ]
    chosen = [[json.loads(line)["decision"]["expert"] for line in way.stdout.splitlines()] for way in ways]
    assert all(each == chosen[0] for each in chosen)


def test_a_cut_query_is_marked(zooter, saved_router):
    long = "why " * 200
    assert "[cut]" in zooter("route", "-m", saved_router, long).stdout
    row = json.loads(zooter("route", "-m", saved_router, "--json", long).stdout)
    assert row["truncated"]
    assert row["query_tokens"] > row["read_tokens"]


def test_info(zooter, saved_router):
    out = zooter("info", saved_router).stdout
    for needle in ("bert, 2 layers", "mlp on mean", "temperature 1.0", "math-7b", "org/code-9b", "8192", "0.6"):
        assert needle in out, needle
    assert json.loads(zooter("info", saved_router, "--json").stdout)["model_type"] == "zooter"


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["route", "-m", "{router}", "hello", ""], "", "Query 1 of the batch: the query is empty"),
        (["route", "-m", "{router}", "hello", "--file", "q.txt"], "", "Give one of them"),
        (["route", "-m", "{router}", "--file", "nothing.txt"], "", "nothing.txt is not a file"),
        (["route", "-m", "{router}", "--jsonl"], '"a"\n{', "Line 2 of standard input is not JSON"),
        (["route", "-m", "./nowhere", "hello"], "", "./nowhere is not a folder"),
        (["route", "-m", "no-one/nothing", "hello"], "", "couldn't"),
        (["info", "./nowhere"], "", "./nowhere is not a folder"),
        (["push", "./nowhere", "me/router"], "", "./nowhere is not a folder"),
        (["route", "-m", "{router}", "--top-k", "0", "hello"], "", "top-k"),
    ],
)
def test_errors_are_messages(zooter, saved_router, arguments, stdin, message):
    arguments = [argument.format(router=saved_router) for argument in arguments]
    assert message in zooter(*arguments, stdin=stdin, check=False).stderr


def test_a_file_that_is_no_text_is_named(zooter, saved_router, tmp_path):
    (tmp_path / "weights.txt").write_bytes(bytes(range(256)))
    assert "weights.txt is not UTF-8" in zooter("route", "-m", saved_router, "-f", "weights.txt", check=False).stderr


def test_another_kind_of_model_is_refused(zooter, make_router, tmp_path):
    make_router().encoder.save_pretrained(tmp_path / "bert")
    assert "'bert', not a Zooter router" in zooter("info", tmp_path / "bert", check=False).stderr
