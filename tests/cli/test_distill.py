import json
import re

import pytest

from tests.distillation.conftest import make_rows
from zooter_hf import RewardTable


EXPERTS = ["math-7b", "code-9b", "chat-70b"]
QUICK = ("--batch-size", 4, "--epochs", 30)


@pytest.fixture
def encoder(make_router, tmp_path):
    router = make_router()
    router.encoder.save_pretrained(tmp_path / "encoder")
    router.tokenizer.save_pretrained(tmp_path / "encoder")
    return "encoder"


@pytest.fixture
def rewards(tmp_path):
    RewardTable.from_rows(make_rows(EXPERTS)).save(tmp_path / "rewards.jsonl")
    return "rewards.jsonl"


def test_one_command_from_table_to_router(zooter, rewards, encoder, tmp_path):
    run = zooter("distill", rewards, "--encoder", encoder, "--output", "router", "--test-share", 0.25, *QUICK)
    assert "best single" in run.stdout
    assert "zooter route" in run.stdout
    assert {"config.json", "model.safetensors", "README.md", "evaluation"} <= {
        path.name for path in (tmp_path / "router").iterdir()
    }
    decision = json.loads(zooter("route", "-m", "./router", "--json", "Prove that two is irrational.").stdout)[
        "decision"
    ]
    assert decision["expert"] == "math-7b"
    facts = zooter("info", "./router").stdout
    assert "Reward distillation" in facts and "best single model" in facts


def test_the_papers_settings(zooter, rewards, encoder):
    options = ("--preset", "paper", "--epochs", 1, "--batch-size", 4, "--test-share", 0)
    zooter("distill", rewards, "-e", encoder, "-o", "router", *options)
    config = json.loads(zooter("info", "./router", "--json").stdout)
    assert (config["training"]["tau"], config["training"]["beta"]) == (1.0, 0.3)
    assert config["training"]["hyperparameters"]["learning rate"] == "1e-05"
    assert config["head"] == "linear"


def test_settings_reach_the_training(zooter, rewards, encoder):
    options = ("--lora-r", 2, "--epochs", 1, "--batch-size", 4, "--tau", 0.5, "--beta", 0.7, "--head", "linear")
    zooter("distill", rewards, "-e", encoder, "-o", "router", *options, "--test-share", 0.25, "--name", "mine")
    config = json.loads(zooter("info", "./router", "--json").stdout)
    training = config["training"]
    assert (training["tau"], training["beta"], training["name"]) == (0.5, 0.7, "mine")
    assert training["hyperparameters"]["LoRA rank"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Which encoder.*--encoder"),
        (("-e", "./nowhere", *QUICK), "no encoder folder ./nowhere"),
        (("-e", "encoder", "--train-encoder", "--lora-r", 2), "one of them"),
        (("-e", "encoder"), "24 queries, fewer than a batch of 128"),
        (("-e", "encoder", "--tau", "warm"), "'warm'"),
        (("-e", "encoder", "--test", "missing.jsonl"), "missing.jsonl"),
        (("-e", "encoder", "-o", "."), "not empty.*--overwrite"),
    ],
)
def test_mistakes(arguments, message, zooter, rewards, encoder, tmp_path):
    error = zooter("distill", rewards, "-o", "router", *arguments, check=False).stderr
    assert re.search(message, error), error
    assert not (tmp_path / "router").exists()
