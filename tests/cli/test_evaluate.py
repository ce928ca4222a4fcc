"""`zooter evaluate` as a user types it."""

import json

import pytest

from tests.conftest import EXPERTS, QUERIES
from zooter_hf import EvaluationReport, RewardTable, evaluate
from zooter_hf.distillation import soft_targets


NAMES = [expert.name for expert in EXPERTS]
REWARDS = [[1, 0, 0], [0, 1, 0.25], [0, None, 1], [1, 1, 0], [0.5, 0.5, 1]]


def write_table(path, rewards=REWARDS, names=NAMES, **columns):
    rows = [
        {
            "query": query,
            "rewards": dict(zip(names, of_query, strict=True)),
            "tags": ["short" if len(query) < 40 else "long"],
            "subset": subset,
            **columns,
        }
        for query, of_query, subset in zip(QUERIES, rewards, ["proofs", "code", "talk", "talk", "talk"], strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "test.jsonl", costs=dict.fromkeys(NAMES, 0.001))


@pytest.fixture
def run(zooter, saved_router):
    return lambda *arguments, **options: zooter("evaluate", saved_router, *arguments, **options)


def test_it_prints_tables(run, table):
    out = run(table).stdout
    lines = out.splitlines()
    assert lines[0].startswith("test: 5 queries; mean reward over the queries, in percent, with 95 % intervals")
    assert out.index("router") < out.index("best single model") < out.index("oracle") < out.index("math-7b ")
    for needle in ("$ / 1000", "MTR", "uplift", "proofs", "code", "talk", "Gain over best single", "Quality: regret"):
        assert needle in out, needle
    assert "KL" not in out
    assert "targets" in run(table, "--tau", "0.5").stdout


def test_json_is_the_report_of_the_api(run, table, saved_router):
    from transformers import AutoModel

    out = run(table, "--json", "--average", "subsets", "--tau", "0.5", "--beta", "0.7", "--seed", "3").stdout
    rewards = RewardTable.load(table)
    expected = evaluate(
        AutoModel.from_pretrained(saved_router),
        rewards,
        average="subsets",
        targets=soft_targets(rewards.rewards, rewards.tags, tau=0.5, beta=0.7),
        seed=3,
        dataset="test",
    )
    assert json.loads(out) == expected.to_dict()
    assert expected.kl > 0


def test_a_training_table_and_true_rewards_add_rows(run, table, tmp_path):
    flipped = [[None if value is None else 1 - value for value in row] for row in REWARDS]
    true = write_table(tmp_path / "true.jsonl", flipped)
    report = json.loads(run(table, "--train", table, "--true-rewards", true, "--json").stdout)
    kinds = [row["kind"] for row in report["rows"]]
    assert kinds[0] == "router"
    assert {"training_best_single", "knn", "kmeans", "reward_model_ranking"} <= set(kinds)
    scores = {row["kind"]: row["score"] for row in report["rows"]}
    assert scores["reward_model_ranking"] == 0  # what the teacher likes best is worst
    assert scores["oracle"] == 0.9


def test_experts_in_another_order_are_no_problem(run, table, tmp_path):
    other = write_table(tmp_path / "other.jsonl", [row[::-1] for row in REWARDS], NAMES[::-1])
    one, two = (json.loads(run(path, "--json").stdout) for path in (table, other))
    assert two["experts"] == NAMES
    assert [row["score"] for row in one["rows"]] == [row["score"] for row in two["rows"]]


def test_output(run, table, tmp_path):
    out = run(table, "--output", "report", "--no-plots", "--name", "mine").stdout
    assert "Saved in report" in out
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"evaluation.json", "evaluation.md"}
    assert EvaluationReport.load("report").router == "mine"
    run(table, "--output", "report", "--overwrite", "--json")
    assert (tmp_path / "report" / "cost.png").exists()
    assert EvaluationReport.load("report").router == "router"


def test_a_folder_that_is_taken_is_found_first(run, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "evaluation.md").write_text("mine")
    error = run("no-such-table.jsonl", "-o", "report", check=False).stderr
    assert "evaluation.md is there already" in error
    assert "--overwrite" in error
    assert (tmp_path / "report" / "evaluation.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-table.jsonl"], "There is no file or folder no-such-table.jsonl"),
        (["{table}", "--train", "nothing.jsonl"], "nothing.jsonl"),
        (["{table}", "--beta", "0.3"], "Give both"),
        (["{table}", "--tau", "-1"], "`tau` must be positive"),
        (["{table}", "--average", "macro"], "macro"),
        (
            ["{others}"],
            "the experts ['math-7b', 'code-9b', 'chat-70b'], and the table has others: ['x'",
        ),
    ],
)
def test_errors_are_messages(run, table, tmp_path, arguments, message):
    others = write_table(tmp_path / "others.jsonl", names=["x", "y", "z"])
    error = run(*(each.format(table=table, others=others) for each in arguments), check=False).stderr
    assert message in error
    assert "Traceback" not in error


def test_sets_and_costs(zooter, folders_with_costs):
    out = zooter("evaluate", "./router", "test", "--train", "train", "--costs", "--sets", "0.2", "-o", "report").stdout
    assert "AIQ" in out and "0.2" in out
    for name in ("sets", "costs"):
        assert list((folders_with_costs / "report" / name).glob("*.json")), name


@pytest.fixture
def folders_with_costs(make_router, tmp_path):
    import torch

    from tests.distillation.test_new_expert import table_of

    make_router(predict_rewards=True).save_pretrained(tmp_path / "router")
    torch.manual_seed(0)
    for name in ("train", "test"):
        rows = [
            {**row, "costs": dict(zip(NAMES, (0.001, 0.002, 0.01), strict=True))}
            for row in table_of(torch.rand(60, 3).double(), NAMES)
        ]
        RewardTable.from_rows(rows).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--costs"], "--train"),
        (["--sets", "0.2", "--json"], "--output"),
        (["--sets", "0.001"], "at least 999"),
        (["--sets", "3"], "between 0 and 1"),
    ],
)
def test_mistakes_with_sets_and_costs(zooter, folders_with_costs, options, message):
    assert message in zooter("evaluate", "./router", "test", *options, check=False).stderr
