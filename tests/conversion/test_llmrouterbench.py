import json

import pytest

from zooter_hf.conversion.reward_tables import load


def record(index=1, score=1.0, **changes):
    base = {
        "index": index,
        "origin_query": f"{index}+{index}?",
        "prompt": f"Question: {index}+{index}?\nAnswer:",
        "prompt_tokens": 15,
        "completion_tokens": 5,
        "cost": 0.0001,
        "score": score,
        "prediction": "2",
        "ground_truth": "2",
        "raw_output": "It is 2.",
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


def write(root, data_set, model, records, split="test", time="20251002_120000", **changes):
    path = root / data_set / split / model / f"{data_set}-{split}-{model}-{time}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"performance": 0.5, "demo": False, "model_name": model, "dataset_name": data_set, "split": split}
    path.write_text(json.dumps({**content, "records": records, **changes}))
    return path


def test_rows_of_all_models_with_costs_and_answers(tmp_path):
    write(tmp_path, "aime", "a", [record(1, 1.0), record(2, 0.5, cost=0.25)])
    write(tmp_path, "aime", "b", [record(2, 0.0, raw_output=["x"]), record(1, 0)])
    write(tmp_path, "mbpp", "b", [record(1, True, cost=0)])
    table = load(tmp_path, "llmrouterbench")
    assert len(table.left_out) == 1, "a score is a number"
    write(tmp_path, "mbpp", "b", [record(1, 0.75, cost=0)])
    table = load(tmp_path, "llmrouterbench")
    assert not table.left_out
    assert list(table) == [
        {
            "query": "Question: 1+1?\nAnswer:", "rewards": {"a": 1.0, "b": 0.0}, "tags": ["aime"], "subset": "aime",
            "costs": {"a": 0.0001, "b": 0.0001}, "responses": {"a": "It is 2.", "b": "It is 2."},
        },
        {
            "query": "Question: 2+2?\nAnswer:", "rewards": {"a": 0.5, "b": 0.0}, "tags": ["aime"], "subset": "aime",
            "costs": {"a": 0.25, "b": 0.0001}, "responses": {"a": "It is 2.", "b": '["x"]'},
        },
        {
            "query": "Question: 1+1?\nAnswer:", "rewards": {"a": None, "b": 0.75}, "tags": ["mbpp"], "subset": "mbpp",
            "costs": {"a": None, "b": 0.0}, "responses": {"a": None, "b": "It is 2."},
        },
    ]  # fmt: skip
    assert load(tmp_path, "llmrouterbench", query="origin_query").queries[:] == ["1+1?", "2+2?", "1+1?"]


def test_an_answer_that_failed_has_neither_reward_nor_cost(tmp_path):
    write(tmp_path, "aime", "a", [record(1, 0.0), record(2, None)])
    write(tmp_path, "aime", "b", [record(1, None, cost=0.0, raw_output="Processing failed: timeout"), record(2, None)])
    table = load(tmp_path, "llmrouterbench")
    assert table[0]["rewards"] == {"a": 0.0, "b": None}
    assert table[0]["costs"] == {"a": 0.0001, "b": None}
    assert len(table) == 1 and "all its rewards are null" in str(table.left_out[0])


def test_the_newest_result_counts_and_trial_runs_do_not(tmp_path):
    write(tmp_path, "aime", "a", [record(score=0.1)], time="20251001_235959")
    write(tmp_path, "aime", "a", [record(score=0.2)], time="20251002_000000")
    write(tmp_path, "aime", "a", [record(score=0.3)], time="20250901_000000")
    write(tmp_path, "aime", "a", [record(score=0.4)], time="20251003_000000", demo=True)
    assert load(tmp_path, "llmrouterbench").rewards.tolist() == [[0.2]]
    write(tmp_path, "aime", "a", [record(score=0.9)], time="final")
    assert load(tmp_path, "llmrouterbench").rewards.tolist() == [[0.2]], "a name with a time goes first"
    write(tmp_path, "aime", "a", [record(score=0.9)], time="last")
    for path in tmp_path.rglob("*2025*.json"):
        path.unlink()
    with pytest.raises(ValueError, match="results of one run"):
        load(tmp_path, "llmrouterbench")


def test_malformed_records_are_left_out_and_named(tmp_path):
    bad = [
        3,
        record(2, "good"),
        record(2, ...),
        record(..., 1.0),
        record(2, 1.0, prompt=...),
        record(2, 1.0, cost="much"),
        record(1, 0.0),  # once more
        record([2], 1.0),
    ]
    write(tmp_path, "aime", "a", [record(1), *bad])
    write(tmp_path, "aime", "b", [record(1, prompt="Another question"), record(3)])
    table = load(tmp_path, "llmrouterbench")
    assert [problem.where.split("-")[-1] for problem in table.left_out] == [
        *(f"20251002_120000.json, record {n}" for n in range(2, 10)),
        "20251002_120000.json, record 1",
    ]
    assert "asks something else than aime/test/a/" in table.left_out[-1].reason
    assert table.rewards[:, 0].isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("[]", "is no result"), ('{"records": []}', "it needs dataset_name, split, model_name")],
)
def test_files_of_other_kinds_are_an_error(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, "llmrouterbench")
    with pytest.raises(ValueError, match='"prompt" or "origin_query", got \'question\''):
        load(tmp_path, "llmrouterbench", query="question")
