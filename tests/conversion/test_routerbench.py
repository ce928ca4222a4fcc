import csv

import pytest

from zooter_hf.conversion.reward_tables import load, routerbench


HEADER = [
    "sample_id", "prompt", "eval_name", "b/b", "a", "a|total_cost", "b/b|total_cost", "oracle_model_to_route_to",
]  # fmt: skip


def write(path, *rows, header=HEADER):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def test_scores_costs_and_prompts(tmp_path):
    write(
        tmp_path / "one.csv",
        ["1", "['What is\\n1+1?']", "math", "1.0", "0.0", "0.002", "0.001", "b/b"],
        ["2", "['First.', 'Second.']", "math", "", "0.25", "0.002", "", "a"],
        ["3", "[x] is what?", "chat", "1", "1", "0.1", "0.2", "a"],
        ["4", "Plain, with a comma", "", "1", "1", "0.1", "0.2", "a"],
    )
    table = load(tmp_path, "routerbench")
    assert table.expert_names == ["b/b", "a"]
    assert list(table.queries) == ["What is\n1+1?", "First.\n\nSecond.", "[x] is what?", "Plain, with a comma"]
    assert table.subsets == ["math", "math", "chat", None]
    assert table.tags == [["math"], ["math"], ["chat"], []]
    assert table.rewards.nan_to_num(-1).tolist() == [[1.0, 0.0], [-1.0, 0.25], [1.0, 1.0], [1.0, 1.0]]
    assert table.costs.nan_to_num(-1).tolist()[:2] == [[0.001, 0.002], [-1.0, 0.002]]


def test_malformed_rows_are_left_out_and_named(tmp_path):
    good = ["1", "Why?", "math", "1.0", "0.0", "0.002", "0.001", "b/b"]
    write(
        tmp_path / "one.csv",
        good,
        ["2", "Why?", "math", "yes", "0.0", "0.002", "0.001", "b/b"],
        ["3", "", "math", "1.0", "0.0", "0.002", "0.001", "b/b"],
        ["4", "Why?", "math", "nan", "0.0", "0.002", "0.001", "b/b"],
        ["5", "Why?", "math", "1.0"],
        [*good, "more"],
        ["7", "Why?", "math", "", "", "0.002", "0.001", "b/b"],
    )
    table = load(tmp_path / "one.csv", "routerbench")
    assert len(table) == 1
    assert [problem.where for problem in table.left_out] == [f"one.csv, line {n}" for n in range(3, 9)]


def test_other_files_are_an_error(tmp_path):
    write(tmp_path / "one.csv", header=["prompt", "score"])
    with pytest.raises(ValueError, match=r"one.csv is not a RouterBench table.*total_cost"):
        routerbench.experts(tmp_path)
    with pytest.raises(OSError, match=r"\*\.csv"):
        load(tmp_path / "nowhere", "routerbench")
