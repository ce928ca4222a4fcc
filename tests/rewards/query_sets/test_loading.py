"""Query sets as people have them."""

import json
import subprocess
import sys

import pytest
from datasets import Dataset

from tests.hub_server import hub_environment
from zooter_hf import RewardTable
from zooter_hf.rewards.query_sets import QueryItem, load_queries


CHAT = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "?"}]


def test_json_lines_of_every_kind(tmp_path):
    file = tmp_path / "queries.jsonl"
    rows = ["Why?", CHAT, {"query": "2 + 2", "reference": 4, "tags": ["math"], "subset": "sums"}, {"messages": CHAT}]
    file.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert load_queries(file) == [
        QueryItem("Why?"),
        QueryItem(CHAT),
        QueryItem("2 + 2", reference="4", tags=("math",), subset="sums"),
        QueryItem(CHAT),
    ]


def test_text_has_a_query_a_line(tmp_path):
    file = tmp_path / "queries.txt"
    file.write_text("  Why?\n\nHow?\r\n", encoding="utf-8")
    assert [item.query for item in load_queries(file)] == ["Why?", "How?"]


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_datasets(tmp_path, kind):
    data = Dataset.from_list(
        [{"question": "1 + 1", "answer": "2", "task": "sums"}, {"question": "Why?", "answer": None, "task": None}]
    )
    path = tmp_path / ("set.parquet" if kind == "parquet" else "set")
    data.to_parquet(path) if kind == "parquet" else data.save_to_disk(path)
    assert load_queries(path) == [QueryItem("1 + 1", reference="2", subset="sums"), QueryItem("Why?")]


def test_a_reward_table_is_a_query_set(tmp_path):
    rows = [{"query": q, "rewards": {"a": 1.0}, "tags": ["t"], "subset": "s"} for q in ("Why?", CHAT)]
    RewardTable.from_rows(rows).save(tmp_path / "table")
    expected = [QueryItem("Why?", tags=("t",), subset="s"), QueryItem(CHAT, tags=("t",), subset="s")]
    assert load_queries(tmp_path / "table") == expected


HUB_SCRIPT = """
from huggingface_hub import HfApi
from zooter_hf.rewards.query_sets import load_queries

api = HfApi()
api.create_repo("you/queries", repo_type="dataset")
data = b'{"question": "Why?", "answer": "x"}'
api.upload_file(path_or_fileobj=data, path_in_repo="train.jsonl", repo_id="you/queries", repo_type="dataset")
print(load_queries("you/queries"))
for name, split in (("you/missing", "train"), ("you/queries", "test")):
    try:
        load_queries(name, split=split)
    except (OSError, ValueError) as error:
        print(error)
"""


def test_a_dataset_on_the_hub(hub, tmp_path):
    environment = hub_environment(hub, tmp_path / "home")
    run = subprocess.run([sys.executable, "-c", HUB_SCRIPT], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    items, missing, split = run.stdout.strip().splitlines()
    assert items == repr([QueryItem("Why?", reference="x")])
    assert "you/missing" in missing and 'Unknown split "test"' in split


def test_columns_that_are_named(tmp_path):
    file = tmp_path / "queries.jsonl"
    file.write_text(json.dumps({"query": "no", "q": "Why?", "gold_answer": 3, "kind": "x", "from": "s"}))
    named = {"query_column": "q", "reference_column": "gold_answer", "tag_column": "kind", "subset_column": "from"}
    assert load_queries(file, **named) == [QueryItem("Why?", reference="3", tags=("x",), subset="s")]


def test_errors(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"query": "x"}\n{"query": ""}\n{"other": 1}\n{no json}\n')
    with pytest.raises(ValueError, match=r"(?s)3 queries .*row 2: its query is empty.*row 3: .*other.*row 4: .*JSON"):
        load_queries(bad)
    with pytest.raises(ValueError, match=r"no column 'q'; the columns are \['query'\]"):
        load_queries(bad, query_column="q")
    with pytest.raises(OSError, match="no file or folder .*missing.jsonl"):
        load_queries(tmp_path / "missing.jsonl")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="holds no query"):
        load_queries(tmp_path / "empty.txt")
    (tmp_path / "x.csv").write_text("query\nWhy?\n")
    with pytest.raises(ValueError, match="of a kind that is not read"):
        load_queries(tmp_path / "x.csv")
    (tmp_path / "latin.txt").write_bytes("Wozu die Mühe?".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        load_queries(tmp_path / "latin.txt")
