"""Every code block of the README runs as it stands, with a local Hub behind the names in it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import BertForSequenceClassification

from tests.conftest import ENCODERS
from tests.experts.tiny_models import save_model
from tests.hub_server import HubServer
from zooter_hf import RewardTable
from zooter_hf.conversion.reward_tables import load
from zooter_hf.experts import load_experts


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = "route|generate|label|convert|distill|calibrate|evaluate|info|push"
RUNNABLE = ("python", "bash")


@pytest.fixture(scope="module")
def world(make_router, tmp_path_factory):
    """A folder to work in, and a Hub that has the encoder which the README starts from, in a small edition."""
    folder = tmp_path_factory.mktemp("readme")
    router = make_router("deberta-v2")
    router.encoder.save_pretrained(folder / "encoder")
    router.tokenizer.save_pretrained(folder / "encoder")
    shutil.copytree(folder / "encoder", folder / "all-MiniLM-L6-v2")
    write_scores(folder)
    write_experts(folder, router)
    with HubServer() as hub:
        hub.create_repo("microsoft/mdeberta-v3-base")
        hub.commit("microsoft/mdeberta-v3-base", {p.name: p.read_bytes() for p in (folder / "encoder").iterdir()})
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "COLUMNS": "160",
        }
        yield folder, environment


def write_experts(folder, router):
    """Experts, a reward model and queries, all tiny."""
    save_model(folder / "small", seed=0, max_position_embeddings=1024)
    save_model(folder / "large", seed=1, max_position_embeddings=1024)
    experts = [{"name": name, "backend": "transformers", "model": name} for name in ("small", "large")]
    (folder / "experts.yaml").write_text(yaml.safe_dump(experts), encoding="utf-8")
    config = ENCODERS["bert"](len(router.tokenizer))
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(folder / "reward-model")
    router.tokenizer.save_pretrained(folder / "reward-model")
    (folder / "queries.jsonl").write_text('"Why?"\n{"query": "Who?", "subset": "s"}\n', encoding="utf-8")


def write_scores(folder):
    """A table of scores as LLMRouter has them, and a reward table to evaluate on."""
    rows = [
        {
            "question": f"What is the {word} {'a' * (n + 1)}?",
            "scores": {"a": n % 2, "b": 0.5, "c": (n + 1) % 2},
            "task": f"t{n % 2}",
        }
        for n, word in enumerate(["sum", "tale"] * 100)
    ]
    (folder / "llmrouter_train").mkdir()
    (folder / "llmrouter_train" / "train.jsonl").write_text("\n".join(map(json.dumps, rows[:180])), encoding="utf-8")
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows[180:])), encoding="utf-8")
    load(folder / "test.jsonl", "llmrouter").save(folder / "test-rewards")


def run(command, world, **options):
    folder, environment = world
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


def test_python_and_command_line_blocks_run_in_order(world):
    python = "\n".join(block for language, block in BLOCKS if language == "python")
    run([sys.executable, "-c", python], world)
    assert (world[0] / "my-router" / "README.md").exists()

    zooter = f"{shlex.quote(sys.executable)} -c 'from zooter_hf.cli import main; main()'"
    lines = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()]
    commands = [line for line in lines if "zooter " in line]
    assert len(commands) >= 5
    for line in commands:
        assert run(re.sub(rf"\bzooter(?= ({COMMANDS}))", lambda _: zooter, line), world, shell=True).stdout


def test_other_commands_are_ones_that_exist():
    lines = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()]
    for line in (line for line in lines if "zooter " not in line):
        if line.startswith("make "):
            dry = subprocess.run(f"make -n {line[5:]}", shell=True, cwd=ROOT, capture_output=True, text=True)
            assert dry.returncode == 0, dry.stderr
        else:
            assert line == 'pip install -c constraints.txt -e ".[cli]"', "what the Makefile does"


def test_no_block_is_left_out():
    assert {language for language, _ in BLOCKS} <= {*RUNNABLE, "json", "yaml", "sh", "bibtex"}


def test_the_row_of_a_reward_table_is_one():
    rows = [json.loads(block) for language, block in BLOCKS if language == "json"]
    assert len(RewardTable.from_rows(rows)) == 1


def test_the_list_of_experts_is_one(tmp_path):
    (block,) = [block for language, block in BLOCKS if language == "yaml"]
    (tmp_path / "experts.yaml").write_text(block, encoding="utf-8")
    specs = load_experts(tmp_path / "experts.yaml")
    assert [spec.backend for spec in specs] == ["transformers", "adapter", "endpoint"]


def test_named_modules_exist():
    for module in re.findall(r"python -m ([\w.]+)", README):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


def test_linked_files_exist():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        path, _, section = target.partition("#")
        assert (ROOT / path).exists(), target
        if section:
            headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert section in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}, target
