import json

import pytest

from zooter_hf.conversion.reward_tables import load, routerdc


MODELS = ("org/a", "org/b")


def rows(*scores, **extra):
    return [
        {"question": f"question {index}", "scores": dict(zip(MODELS, pair, strict=True)), "cluster_id": index, **extra}
        for index, pair in enumerate(scores)
    ]


def write(path, content):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(content))


def test_shares_count_as_they_are_and_probabilities_as_right_or_wrong(tmp_path):
    write(tmp_path / "gsm8k-train.json", rows((0.3, 1.0), (0.0, 0.7000000000000001)))
    write(tmp_path / "ood" / "mmlu_test.json", rows((0.31, 0.0), (0, 0.999)))
    table = load(tmp_path, "routerdc")
    assert table.subsets == ["gsm8k", "gsm8k", "mmlu", "mmlu"]
    assert table.tags == [["gsm8k"], ["gsm8k"], ["mmlu"], ["mmlu"]]
    assert table.rewards.tolist() == [[0.3, 1.0], [0.0, pytest.approx(0.7)], [1.0, 0.0], [0.0, 1.0]]
    assert [expert.model for expert in table.experts] == list(MODELS)


def test_clusters_are_tags_if_asked_for(tmp_path):
    write(tmp_path / "mmlu_train.json", rows((0.31, 0.0), (0.2, 0.0)))
    assert load(tmp_path / "mmlu_train.json", "routerdc", clusters=True).tags == [
        ["mmlu", "mmlu/cluster-0"],
        ["mmlu", "mmlu/cluster-1"],
    ]
    without = [{key: value for key, value in row.items() if key != "cluster_id"} for row in rows((0.3, 0.1))]
    write(tmp_path / "arc_easy.json", without)
    assert load(tmp_path / "arc_easy.json", "routerdc", clusters=True).tags == [["arc_easy"]]


def test_malformed_rows_are_left_out_and_named(tmp_path):
    good = rows((0.31, 0.0))[0]
    bad = [
        3,
        {"question": "x"},
        {"scores": good["scores"]},
        {**good, "scores": {"org/a": "1", "org/b": "x"}},
        {**good, "scores": {"org/a": True, "org/b": 0}},
        {**good, "scores": {"org/a": 0.5}},
        {**good, "question": ""},
    ]
    write(tmp_path / "mmlu_train.json", [good, *bad, good])
    table = load(tmp_path, "routerdc")
    assert len(table) == 2
    assert [problem.where for problem in table.left_out] == [f"mmlu_train.json, row {n}" for n in range(2, 9)]


def test_files_of_other_kinds_are_an_error(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match="x.json is not JSON"):
        list(routerdc.read(tmp_path))
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="x.json is not a list"):
        load(tmp_path, "routerdc")
    with pytest.raises(OSError, match=r"\*\.json"):
        load(tmp_path / "nowhere", "routerdc")
