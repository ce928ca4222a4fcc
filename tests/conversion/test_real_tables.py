"""The readers on the tables they were written for, where those are at hand; references are computed plainly."""

import ast
import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from zooter_hf.conversion.reward_tables import load


DATA = Path(__file__).parents[3] / "shared" / "data"


def source(name):
    path = DATA / name
    if not path.is_dir():
        pytest.skip(f"{name} is not at hand")
    return path


def test_llmrouter():
    path = source("llmrouter_train")
    table = load(path, "llmrouter")
    with (path / "train.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert (len(table), len(table.experts), len(table.left_out)) == (5608, 9, 0)
    assert all(expert.input_price is not None for expert in table.experts)
    for name, mean in zip(table.expert_names, table.rewards.mean(0).tolist(), strict=True):
        assert mean == pytest.approx(sum(row["scores"][name] for row in rows) / len(rows))


def test_routerdc():
    path = source("routerdc_train")
    table = load(path, "routerdc")
    assert Counter(table.subsets) == {
        "arc_challenge": 820, "arc_easy": 1663, "cmmlu": 2000, "gsm8k": 1000, "humaneval": 115, "mmlu": 2000,
    }  # fmt: skip
    assert len(table.experts) == 7 and not table.left_out
    means = {name: table.select_subsets([name]).rewards.mean(0).tolist() for name in ("gsm8k", "cmmlu")}
    gsm8k = json.loads((path / "gsm8k-train.json").read_text(encoding="utf-8"))
    cmmlu = json.loads((path / "cmmlu_train.json").read_text(encoding="utf-8"))
    for index, name in enumerate(table.expert_names):
        assert means["gsm8k"][index] == pytest.approx(sum(row["scores"][name] for row in gsm8k) / 1000)
        assert means["cmmlu"][index] == pytest.approx(sum(row["scores"][name] > 0 for row in cmmlu) / 2000)


def test_routerbench():
    path = source("routerbench_train")
    table = load(path, "routerbench")
    assert Counter(table.subsets) == {"arc-challenge": 1039, "mbpp": 299, "winogrande": 887}
    assert len(table.experts) == 11
    with (path / "mbpp_train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    mbpp = table.select_subsets(["mbpp"])
    assert mbpp.queries[0] == ast.literal_eval(rows[0]["prompt"])[0]
    for index, name in enumerate(table.expert_names):
        assert mbpp.rewards[:, index].mean().item() == pytest.approx(sum(float(r[name]) for r in rows) / len(rows))
        price = sum(float(row[f"{name}|total_cost"]) for row in rows) / len(rows)
        assert mbpp.costs[:, index].mean().item() == pytest.approx(price)
