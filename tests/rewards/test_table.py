"""Reward tables: what goes in comes out, and what is wrong is named."""

import json
import math
import subprocess
import sys

import pytest
import torch
from datasets import Dataset, DatasetDict

from tests.hub_server import hub_environment
from zooter_hf import ExpertSpec, RewardTable
from zooter_hf.rewards.storage import EXPERTS_FILE


ROWS = [
    {"query": "2 + 2 = ?", "rewards": {"a": 1.0, "b/c.d": 0.5}, "tags": ["math", "easy"], "subset": "sums"},
    {"query": "Say hi.", "rewards": {"a": None, "b/c.d": 0.25}, "tags": [], "subset": "chat"},
    {"query": "3 + 4 = ?", "rewards": {"a": 0.0, "b/c.d": -2.5}, "tags": ["math"], "subset": "sums"},
    {"query": "Und nun? ü", "rewards": {"a": 0.125, "b/c.d": None}, "tags": ["chat"], "subset": "chat"},
]
CHAT = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi", "tool_calls": [{"id": 7}]}]


@pytest.fixture
def table():
    return RewardTable.from_rows(ROWS)


def write_lines(path, rows):
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_columns(table):
    assert table.expert_names == ["a", "b/c.d"]
    assert list(table.queries) == [row["query"] for row in ROWS]
    nan = math.nan
    expected = torch.tensor([[1.0, 0.5], [nan, 0.25], [0.0, -2.5], [0.125, nan]], dtype=torch.float64)
    torch.testing.assert_close(table.rewards, expected, equal_nan=True)
    assert table.tags == [row["tags"] for row in ROWS]
    assert table.subsets == [row["subset"] for row in ROWS]
    assert table.costs is None
    assert list(table) == ROWS


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet", "folder"])
@pytest.mark.parametrize("chats", [False, True])
def test_saved_and_loaded_it_is_the_same(tmp_path, name, chats):
    rows = [dict(row) for row in ROWS]
    rows[0].update(
        spreads={"a": 0.1, "b/c.d": None}, costs={"a": 0.5, "b/c.d": None}, responses={"a": "4", "b/c.d": None}
    )
    rows[1]["query"] = "17"  # JSON by accident
    rows[2]["query"] = '"quoted"'
    if chats:
        rows[3]["query"] = CHAT
    experts = [ExpertSpec("a", input_price=0.5, metadata={"size": "7B"}), "b/c.d"]
    table = RewardTable.from_rows(rows, experts)
    loaded = RewardTable.load(table.save(tmp_path / name))
    assert list(loaded) == rows
    assert loaded.experts == table.experts
    torch.testing.assert_close(loaded.costs, table.costs, equal_nan=True)
    torch.testing.assert_close(loaded.spreads, table.spreads, equal_nan=True)


def test_experts_order_is_the_one_that_is_given(tmp_path):
    path = write_lines(tmp_path / "t.jsonl", ROWS)
    table = RewardTable.load(path, experts=["b/c.d", "a"])
    assert table.rewards[0].tolist() == [0.5, 1.0]
    assert RewardTable.load(table.save(tmp_path / "folder")).expert_names == ["b/c.d", "a"]


def test_loads_datasets_of_the_datasets_library(tmp_path):
    rows = [{"query": row["query"], "rewards": row["rewards"]} for row in ROWS]
    dataset = Dataset.from_list([{**row, "id": 3} for row in rows])
    dataset.save_to_disk(tmp_path / "one")
    loaded = RewardTable.load(tmp_path / "one")
    assert [row["rewards"] for row in loaded] == [row["rewards"] for row in rows]
    DatasetDict({"train": dataset, "test": dataset.select([1])}).save_to_disk(tmp_path / "several")
    assert len(RewardTable.load(tmp_path / "several", split="test")) == 1
    with pytest.raises(ValueError, match=r"splits \['test', 'train'\], not 'dev'"):
        RewardTable.load(tmp_path / "several", split="dev")


def test_loads_integers_and_messages_of_plain_parquet(tmp_path):
    messages = [[{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Ho"}]]
    Dataset.from_dict({"query": messages, "rewards": [{"a": 1, "b": 0}, {"a": 0, "b": None}]}).to_parquet(
        tmp_path / "t.parquet"
    )
    table = RewardTable.load(tmp_path / "t.parquet")
    assert list(table.queries) == messages
    assert table.rewards[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "row, reason",
    [
        ({"query": "x", "rewards": {"a": 1, "b/c.d": 0, "z": 1}}, r"names the experts \['z'\]"),
        ({"query": "x", "rewards": {"a": 1}}, r"lacks the experts \['b/c.d'\]; write null"),
        ({"query": "x", "rewards": {"a": float("nan"), "b/c.d": 0}}, "of 'a' is nan; write null"),
        ({"query": "x", "rewards": {"a": 1, "b/c.d": float("inf")}}, "of 'b/c.d' is inf"),
        ({"query": "x", "rewards": {"a": "1", "b/c.d": 0}}, "must be a number or null, got '1'"),
        ({"query": "x", "rewards": {"a": True, "b/c.d": 0}}, "must be a number or null, got True"),
        ({"query": " \n", "rewards": {"a": 1, "b/c.d": 0}}, "its query is empty"),
        ({"query": [], "rewards": {"a": 1, "b/c.d": 0}}, "without any content"),
        ({"query": [{"content": "x"}], "rewards": {"a": 1, "b/c.d": 0}}, "string or a list of chat messages"),
        ({"query": 7, "rewards": {"a": 1, "b/c.d": 0}}, "string or a list of chat messages, got 7"),
        ({"rewards": {"a": 1, "b/c.d": 0}}, "it has no `query`"),
        ({"query": "x"}, "it has no `rewards`"),
        ({"query": "x", "rewards": [1, 2]}, "one value an expert"),
        ({"query": "x", "rewards": {"a": 1, "b/c.d": 0}, "tags": "math"}, "`tags` must be a list"),
        ({"query": "x", "rewards": {"a": 1, "b/c.d": 0}, "subset": 3}, "`subset` must be a string"),
        ("{broken", "it is not JSON"),
        ("[1]", "a row is an object"),
    ],
)
def test_malformed_rows_are_named(tmp_path, row, reason):
    path = write_lines(tmp_path / "t.jsonl", [ROWS[0], ROWS[1], row, ROWS[2]])
    with pytest.raises(ValueError, match=reason) as error:
        RewardTable.load(path)
    assert "t.jsonl, row 3" in str(error.value)


def test_all_malformed_rows_are_counted(tmp_path):
    bad = {"query": "", "rewards": ROWS[0]["rewards"]}
    path = write_lines(tmp_path / "t.jsonl", [ROWS[0], *[bad] * 25])
    with pytest.raises(ValueError, match=r"25 malformed rows(.|\n)*row 2: (.|\n)*and 15 more"):
        RewardTable.load(path)


def test_malformed_rows_of_a_dataset_are_named(tmp_path):
    rows = [{**row, "rewards": {"a": 1.0, "b": float("inf") if index == 2 else 0.0}} for index, row in enumerate(ROWS)]
    Dataset.from_list(rows).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="row 3: `rewards` of 'b' is inf"):
        RewardTable.load(tmp_path / "t.parquet")


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_rows_without_any_reward_are_left_out_and_reported(tmp_path, name):
    rows = [*ROWS, {"query": "?", "rewards": {"a": None, "b/c.d": None}, "tags": ["x"], "subset": "s"}]
    if name.endswith("jsonl"):
        write_lines(tmp_path / name, rows)
    else:
        Dataset.from_list(rows).to_parquet(tmp_path / name)
    table = RewardTable.load(tmp_path / name)
    assert len(table) == 4
    assert [str(problem) for problem in table.left_out] == [
        f"{'t.jsonl, ' if name.endswith('jsonl') else ''}row 5: all its rewards are null"
    ]


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(OSError, match="There is no file or folder"):
        RewardTable.load(tmp_path / "nothing.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="holds no reward table"):
        RewardTable.load(tmp_path / "empty")
    with pytest.raises(ValueError, match="no row that names experts"):
        RewardTable.load(write_lines(tmp_path / "t.jsonl", []))
    Dataset.from_dict({"text": ["x"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"is no reward table(.|\n)*has \['text'\]"):
        RewardTable.load(tmp_path / "other.parquet")
    (tmp_path / "junk.parquet").write_text("junk")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        RewardTable.load(tmp_path / "junk.parquet")
    (tmp_path / "t.csv").write_text("junk")
    with pytest.raises(ValueError, match="zooter convert"):
        RewardTable.load(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["t.jsonl", "folder"])
def test_nothing_is_overwritten_unasked(tmp_path, table, name):
    path = table.save(tmp_path / name)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        table.select([0]).save(path)
    assert len(RewardTable.load(path)) == 4
    table.select([0]).save(path, overwrite=True)
    assert len(RewardTable.load(path)) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_select_and_rename_experts(table):
    one = table.select_experts(["b/c.d"])
    assert one.expert_names == ["b/c.d"]
    assert len(one) == 3 and "row 4" in str(one.left_out[0])
    renamed = table.rename_experts({"a": "z"})
    assert renamed.expert_names == ["z", "b/c.d"]
    torch.testing.assert_close(renamed.rewards, table.rewards, equal_nan=True)
    with pytest.raises(ValueError, match=r"no experts \['nobody'\]"):
        table.select_experts(["nobody"])
    with pytest.raises(ValueError, match="more than once"):
        table.rename_experts({"a": "b/c.d"})


def test_select_subsets(table):
    assert list(table.select_subsets(["chat"])) == [ROWS[1], ROWS[3]]
    with pytest.raises(ValueError, match=r"no subsets \['x'\]; the table has \['chat', 'sums'\]"):
        table.select_subsets(["x"])


def test_a_selection_of_a_selection_is_saved_as_such(tmp_path, table):
    part = table.select([3, 2, 0]).select([2, 0])
    assert list(part) == [ROWS[0], ROWS[3]]
    assert list(RewardTable.load(part.save(tmp_path / "part"))) == [ROWS[0], ROWS[3]]
    torch.testing.assert_close(part.rewards, table.rewards[[0, 3]], equal_nan=True)


def test_other_tags(table):
    tags = [["x"], [], ["y", "z"], ["x"]]
    assert table.with_tags(tags).tags == tags
    assert table.select([1, 2]).with_tags(tags[1:3]).tags == tags[1:3]
    with pytest.raises(ValueError, match="4 queries, but tags for 1"):
        table.with_tags([["x"]])


def test_join(table):
    other = RewardTable.from_rows(
        [
            {"query": "3 + 4 = ?", "rewards": {"c": 9.0}, "tags": ["new"], "subset": "other"},
            {"query": "only here", "rewards": {"c": 8.0}},
        ]
    )
    inner = table.join(other)
    assert inner.expert_names == ["a", "b/c.d", "c"]
    assert list(inner) == [
        {
            "query": "3 + 4 = ?",
            "rewards": {"a": 0.0, "b/c.d": -2.5, "c": 9.0},
            "tags": ["math", "new"],
            "subset": "sums",
        }
    ]
    outer = table.join(other, how="outer")
    assert len(outer) == 5
    assert outer[4]["rewards"] == {"a": None, "b/c.d": None, "c": 8.0}
    with pytest.raises(ValueError, match=r"experts \['a', 'b/c.d'\] are in both"):
        table.join(table)
    twice = RewardTable.from_rows([{"query": "x", "rewards": {"c": 1}}, {"query": "x", "rewards": {"c": 0}}])
    with pytest.raises(ValueError, match="twice in the other table, in rows 1 and 2"):
        table.join(twice)
    with pytest.raises(ValueError, match="no query in common"):
        table.join(RewardTable.from_rows([{"query": "x", "rewards": {"c": 1}}]))


def test_hub_round_trip(hub, tmp_path, table):
    folder = table.save(tmp_path / "folder")
    code = f"""
import json
from zooter_hf import RewardTable
table = RewardTable.load({str(folder)!r})
table.push_to_hub("you/rewards")
loaded = RewardTable.load("you/rewards")
table.select([0]).push_to_hub("you/rewards", commit_message="fewer")
print(json.dumps([list(loaded), len(RewardTable.load("you/rewards"))]))
try:
    RewardTable.load("you/nothing")
except OSError as error:
    print(json.dumps(str(error)))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=hub_environment(hub, tmp_path / "home")
    )
    assert run.returncode == 0, run.stderr
    first, error = run.stdout.strip().splitlines()
    assert json.loads(first) == [ROWS, 1]
    assert "you/nothing" in error
    files = hub.files("you/rewards", kind="dataset")
    assert {"README.md", EXPERTS_FILE, "data/train-00000-of-00001.parquet"} <= set(files)
    assert "llm-routing" in files["README.md"].decode()
