"""`zooter label`, on tiny random models and on a local server that speaks the OpenAI protocol."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import BertForSequenceClassification

from tests.chat_server import ChatServer
from tests.conftest import ENCODERS
from tests.experts.tiny_models import save_adapter, save_model
from zooter_hf import RewardTable


ROOT = Path(__file__).parents[2]
COUNT = 24


@pytest.fixture(scope="module")
def world(tokenizer, tmp_path_factory):
    """Two models, an adapter on the first, and a reward model; the list of experts names them by relative folders."""
    folder = tmp_path_factory.mktemp("world")
    save_model(folder / "small", seed=0)
    save_model(folder / "large", seed=1)
    save_adapter(folder / "tuned", folder / "small", seed=2)
    experts = [
        {"name": "small", "backend": "transformers", "model": "small", "input_price": 1.0, "output_price": 2.0},
        {"name": "large", "backend": "transformers", "model": "large"},
        {"name": "tuned", "backend": "adapter", "model": "tuned", "options": {"base_model": "small"}},
    ]
    (folder / "experts.yaml").write_text(yaml.safe_dump(experts))
    torch.manual_seed(0)
    config = ENCODERS["bert"](len(tokenizer))
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    words = ["sort", "list", "write", "function", "prove", "root", "square", "two", "who", "why"]
    rows = [
        {"query": f"{words[i % 10]} {words[(3 * i + 1) % 10]} {words[i // 10]}", "answer": "x", "subset": f"s{i % 2}"}
        for i in range(COUNT)
    ]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def arguments(world, output, *more):
    return [
        "label",
        str(world / "queries.jsonl"),
        "--experts",
        str(world / "experts.yaml"),
        "--reward-model",
        str(world / "teacher"),
        "--output",
        str(output),
        "--max-new-tokens",
        "4",
        "--chunk-size",
        "4",
        *map(str, more),
    ]


@pytest.fixture(scope="module")
def undisturbed(world):
    from zooter_hf.experts import GenerationSettings
    from zooter_hf.rewards.labelling import collect_rewards

    return collect_rewards(
        world / "queries.jsonl",
        world / "experts.yaml",
        str(world / "teacher"),
        output=world / "undisturbed",
        settings=GenerationSettings(max_new_tokens=4),
        chunk_size=4,
    )


def test_from_queries_to_a_router(zooter, world, undisturbed, make_router, tmp_path):
    result = zooter(*arguments(world, tmp_path / "rewards"))
    table = RewardTable.load(tmp_path / "rewards")
    assert list(table) == list(undisturbed)
    assert table.expert_names == ["small", "large", "tuned"] and len(table) == COUNT
    assert table.experts[0].input_price == 1.0 and table.costs[0, 0] > 0 and table.costs[0, 1].isnan()
    assert "small: 24 answers" in result.stdout and "zooter distill" in result.stdout
    router = make_router()
    router.encoder.save_pretrained(tmp_path / "encoder")
    router.tokenizer.save_pretrained(tmp_path / "encoder")
    options = ("--batch-size", 4, "--epochs", 2, "--test-share", 0.25)
    zooter("distill", "rewards", "-e", "encoder", "-o", "router", *options)
    assert "small" in zooter("info", "./router").stdout


def test_killed_it_goes_on_and_comes_to_the_same_table(world, undisturbed, tmp_path):
    """SIGKILL, in the middle of every stage that can be hit."""
    command = [sys.executable, "-c", "from zooter_hf.cli import main; main()"]
    command += arguments(world, tmp_path / "rewards")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    answers = tmp_path / "rewards.work" / "answers" / "00000.jsonl"

    def lines():
        return answers.read_bytes().count(b"\n") if answers.exists() else 0

    for at_least in (1, 30):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            limit = time.monotonic() + 120
            while lines() < at_least and process.poll() is None and time.monotonic() < limit:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert lines() >= at_least
    before = answers.read_bytes()
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert list(RewardTable.load(tmp_path / "rewards")) == list(undisturbed)
    kept = before[: before.rfind(b"\n") + 1]
    assert answers.read_bytes().startswith(kept), "what was finished is kept"
    keys = [json.loads(line)["key"] for line in answers.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 3 * COUNT, "and not repeated"


def test_references_are_verified(zooter, world, tmp_path, monkeypatch):
    """Experts behind servers: one always right, one never; nothing of the key is left anywhere."""
    rows = [{"query": f"What is {a} + {a}?", "answer": str(2 * a)} for a in range(6)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def right(messages):
        return f"It is {2 * int(messages[-1]['content'].split()[2])}."

    models = {"right": right, "wrong": lambda messages: "It is -1."}
    with ChatServer(models=models, api_key="sk-secret-1234") as server:
        specs = [
            {
                "name": n,
                "backend": "endpoint",
                "model": n,
                "base_url": server.base_url,
                "options": {"api_key_env": "K"},
            }
            for n in models
        ]
        (tmp_path / "experts.yaml").write_text(yaml.safe_dump({"experts": specs}))
        command = ("label", "sums.jsonl", "-x", "experts.yaml", "--verify", "numeric", "-o", "rewards")
        with monkeypatch.context() as patch:
            patch.setenv("K", "sk-secret-1234")
            result = zooter(*command)
        error = zooter(*command, "--temperature", 0.5, check=False).stderr
    assert RewardTable.load(tmp_path / "rewards").rewards.tolist() == [[1.0, 0.0]] * 6
    assert "No expert gave any answer" in error and "K" in error
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"sk-secret" in content for content in written)
    assert "sk-secret" not in result.stdout + result.stderr + error


def test_queries_in_common_with_an_evaluation_set_are_left_out(zooter, world, undisturbed, tmp_path):
    (tmp_path / "exam.txt").write_text(undisturbed.queries[0] + "\n")
    more = ("--decontaminate", "exam.txt", "--limit", 3, "--tagger", "clusters", "--tagger-model", world / "teacher")
    result = zooter(*arguments(world, tmp_path / "rewards", *more, "--clusters", 2))
    assert "1 queries share 6 words" in result.stderr
    table = RewardTable.load(tmp_path / "rewards")
    assert len(table) == 3 and all(len(tags) == 1 for tags in table.tags)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--experts": "missing.yaml"}, "missing.yaml"),
        ({"--reward-model": None}, "Give --reward-model, --verify or --judge"),
        ({"--tagger": "clusters"}, "--tagger-model"),
        ({"--samples": "2"}, "temperature 0 would all be the same"),
        ({"--query-column": "nothing"}, "no column 'nothing'"),
        ({"--verify": "exact", "--reference-column": "nothing"}, "no column 'nothing'"),
        ({"--output": "taken"}, "taken is not empty"),
    ],
)
def test_errors_before_long_work(zooter, world, tmp_path, change, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    command = arguments(world, tmp_path / "rewards")
    for option, value in change.items():
        if option in command:
            place = command.index(option)
            del command[place : place + 2]
        if value is not None:
            command += [option, value]
    assert message in zooter(*command, check=False).stderr
    assert not (tmp_path / "rewards").exists()


def test_an_unknown_back_end_is_named(zooter, world, tmp_path):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump([{"name": "a", "backend": "vllm", "model": "m"}]))
    command = arguments(world, tmp_path / "rewards")
    command[command.index("--experts") + 1] = "bad.yaml"
    error = zooter(*command, check=False).stderr
    assert "bad.yaml" in error and "backend" in error and "vllm" in error
