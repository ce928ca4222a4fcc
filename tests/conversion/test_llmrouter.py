import json

import pytest

from zooter_hf import ExpertSpec
from zooter_hf.conversion.reward_tables import llmrouter


def table(tmp_path, *lines):
    (tmp_path / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "llms.json").write_text(
        json.dumps({"a-7b": {"size": "7B", "input_price": 0.2, "output_price": 0.4, "model": "org/a-7b"}})
    )
    return tmp_path


def row(**changes):
    return json.dumps({"question": "1+1?", "scores": {"a-7b": 0.5, "b-9b": None}, "task": "math", **changes})


def test_rows_and_experts(tmp_path):
    folder = table(tmp_path, row(), row(task="code"))
    assert next(llmrouter.read(folder)) == {
        "query": "1+1?",
        "rewards": {"a-7b": 0.5, "b-9b": None},
        "tags": ["math"],
        "subset": "math",
    }
    assert [r["subset"] for r in llmrouter.read(folder)] == ["math", "code"]
    assert llmrouter.experts(folder) == [
        ExpertSpec("a-7b", "org/a-7b", "endpoint", input_price=0.2, output_price=0.4, metadata={"size": "7B"})
    ]


@pytest.mark.parametrize(
    "line", ["{", "[]", row(scores=3), row(scores={"a": "good"}), '{"question": "x"}', row(scores={"a": True})]
)
def test_malformed_rows_are_named(tmp_path, line):
    with pytest.raises(ValueError, match="Line 2 of"):
        list(llmrouter.read(table(tmp_path, row(), line)))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(OSError, match="train.jsonl"):
        list(llmrouter.read(tmp_path))
    with pytest.raises(OSError, match="llms.json"):
        llmrouter.experts(tmp_path)
