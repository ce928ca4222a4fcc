import json

import pytest

from zooter_hf import RewardTable


@pytest.fixture
def scores(tmp_path):
    rows = [{"question": f"What is {n}?", "scores": {"a": n % 2, "b": 0.5}, "task": "math"} for n in range(4)]
    lines = [*map(json.dumps, rows), "{"]
    (tmp_path / "scores.jsonl").write_text("\n".join(lines))
    return "scores.jsonl"


def test_convert_says_what_it_read_and_what_it_left_out(zooter, scores, tmp_path):
    out = zooter("convert", scores, "rewards", "--from", "llmrouter").stdout
    assert "4 queries, 2 experts, 1 subsets (math)" in out
    assert "1 rows are left out" in out and "scores.jsonl, line 5" in out
    assert "zooter distill rewards" in out
    table = RewardTable.load(tmp_path / "rewards")
    assert table.rewards.tolist() == [[0.0, 0.5], [1.0, 0.5], [0.0, 0.5], [1.0, 0.5]]


def test_what_is_there_stays(zooter, scores, tmp_path):
    (tmp_path / "rewards.jsonl").write_text("mine")
    error = zooter("convert", "nowhere", "rewards.jsonl", "--from", "llmrouter", check=False).stderr
    assert "rewards.jsonl is there already" in error and "--overwrite" in error  # before the source is looked at
    assert (tmp_path / "rewards.jsonl").read_text() == "mine"
    zooter("convert", scores, "rewards.jsonl", "--from", "llmrouter", "--overwrite")
    assert len(RewardTable.load(tmp_path / "rewards.jsonl")) == 4


def test_mistakes(zooter, scores, tmp_path):
    assert "llmrouter, routerbench, routerdc" in zooter("convert", scores, "x", "--from", "y", check=False).stderr
    assert "nowhere is not there" in zooter("convert", "nowhere", "x", "--from", "routerdc", check=False).stderr
    assert "needs a *.csv" in zooter("convert", scores, "x", "--from", "routerbench", check=False).stderr
    (tmp_path / "scores.jsonl").write_text("{\n{")
    assert "line 2" in zooter("convert", scores, "x", "--from", "llmrouter", check=False).stderr
    assert not (tmp_path / "x").exists()
