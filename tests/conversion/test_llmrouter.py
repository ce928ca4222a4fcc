import json

import pytest

from zooter_hf import ExpertSpec
from zooter_hf.conversion.reward_tables import llmrouter, load


def table(tmp_path, *lines, llms=True):
    (tmp_path / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    if llms:
        (tmp_path / "llms.json").write_text(
            json.dumps({"a-7b": {"size": "7B", "input_price": 0.2, "output_price": 0.4, "model": "org/a-7b"}})
        )
    return tmp_path


def row(**changes):
    return json.dumps({"question": "1+1?", "scores": {"b-9b": None, "a-7b": 0.5}, "task": "math", **changes})


def test_rows_and_experts(tmp_path):
    folder = table(tmp_path, row(), "", row(task="code"))
    where, first = next(llmrouter.read(folder))
    assert where == "train.jsonl, line 1"
    assert first == {
        "query": "1+1?", "rewards": {"a-7b": 0.5, "b-9b": None}, "tags": ["math"], "subset": "math",
    }  # fmt: skip
    assert llmrouter.experts(folder) == [  # in the order of llms.json, then of the table
        ExpertSpec("a-7b", "org/a-7b", "endpoint", input_price=0.2, output_price=0.4, metadata={"size": "7B"}),
        ExpertSpec("b-9b"),
    ]
    assert load(folder, "llmrouter").subsets == ["math", "code"]


def test_a_file_alone_will_do(tmp_path):
    folder = table(tmp_path, row(), llms=False)
    loaded = load(folder / "train.jsonl", "llmrouter")
    assert loaded.expert_names == ["b-9b", "a-7b"]
    assert len(loaded) == 1


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        row(scores=3),
        row(scores={"a-7b": "good", "b-9b": 1}),
        '{"question": "x"}',
        row(scores={"a-7b": True, "b-9b": 1}),
        row(scores={"a-7b": 1.0}),
        row(scores={"a-7b": 1.0, "b-9b": 1, "c": 2}),
        row(question=" "),
        row(scores={"a-7b": None, "b-9b": None}),
        '{"question": "x", "scores": {"a-7b": NaN, "b-9b": 1}, "task": "t"}',
    ],
)
def test_malformed_rows_are_left_out_and_named(line, tmp_path):
    loaded = load(table(tmp_path, row(), line, row()), "llmrouter")
    assert len(loaded) == 2
    assert [problem.where for problem in loaded.left_out] == ["train.jsonl, line 2"]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(OSError, match=r"holds none.*\*\.jsonl"):
        load(tmp_path, "llmrouter")
    with pytest.raises(OSError, match="nowhere is not there"):
        load(tmp_path / "nowhere", "llmrouter")
    with pytest.raises(ValueError, match="no reader for 'csv'.*llmrouter, .*, routerbench, routerdc"):
        load(tmp_path, "csv")
