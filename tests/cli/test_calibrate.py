"""`zooter calibrate`, and policies on the command line."""

import json

import pytest
import torch

from tests.distillation.test_new_expert import NAMES, table_of
from zooter_hf import ExpertSpec, ZooterForRouting


@pytest.fixture
def folders(make_router, tmp_path):
    """A router with prices, and tables of its experts."""
    experts = [
        ExpertSpec(name, input_price=price, output_price=price)
        for name, price in zip(NAMES, (1.0, 4.0, 16.0), strict=True)
    ]
    make_router(experts=experts, head="linear").save_pretrained(tmp_path / "router")
    (tmp_path / "router" / "notes.txt").write_text("mine", encoding="utf-8")
    torch.manual_seed(0)
    tags = [["math"] if row % 2 else ["prose"] for row in range(120)]
    rewards = torch.rand(120, 3).double()
    rewards[:, 1] += 0.2
    table_of(rewards.clamp(max=1), NAMES, tags).save(tmp_path / "rewards")
    return tmp_path


def test_probabilities_and_a_plot(zooter, folders):
    before = (folders / "router" / "model.safetensors").read_bytes()
    out = zooter("calibrate", "./router", "rewards", "--plot", "plot.png", "--method", "temperature").stdout
    assert "Calibrated on 120 queries: temperature" in out and "before" in out
    assert (folders / "plot.png").read_bytes().startswith(b"\x89PNG")
    loaded = ZooterForRouting.from_pretrained(folders / "router")
    assert loaded.config.temperature != 1.0
    assert (folders / "router" / "notes.txt").read_text() == "mine", "what lay beside it is still there"
    assert (folders / "router" / "model.safetensors").read_bytes() == before
    assert f"temperature {loaded.config.temperature:.4g}" in zooter("info", "./router").stdout


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        (["--sets", "0.2"], {"name": "set", "alpha": 0.2}),
        (["--sets", "0.2", "--delta", "0.1"], {"name": "set", "delta": 0.1}),
        (["--max-share", "0.1"], {"name": "cost_aware"}),
        (["--strong", NAMES[2], "--weak", NAMES[0], "--strong-share", "0.5"], {"name": "threshold"}),
    ],
)
def test_policies_are_stored(zooter, folders, options, policy):
    zooter("calibrate", "./router", "rewards", "--method", "none", "-o", "new", *options)
    stored = json.loads((folders / "new" / "config.json").read_text())["policy"]
    assert policy.items() <= stored.items()
    assert json.loads((folders / "router" / "config.json").read_text()).get("policy") is None
    row = json.loads(zooter("route", "-m", "./new", "--json", "Why?").stdout)
    assert row["decision"]["policy"] == policy["name"]
    assert (
        json.loads(zooter("route", "-m", "./new", "--json", "--policy", "argmax", "Why?").stdout)["decision"]["policy"]
        == "argmax"
    )
    assert f"name {policy['name']}" in zooter("info", "./new").stdout


def test_centroids_and_the_default_for_what_is_unfamiliar(zooter, folders):
    out = zooter(
        "calibrate", "./router", "rewards", "--method", "none", "--centroids", "rewards", "--familiar", "0.9"
    ).stdout
    assert "20 centroids of 120 training queries" in out
    stored = json.loads((folders / "router" / "config.json").read_text())["policy"]
    assert stored["default"] == NAMES[1], "the best of the training"
    out = zooter("route", "-m", "./router", "--explain", "--set", "max_distance=0", "What is the moon?").stdout
    assert "unlike any training query" in out and "default expert" in out and "nearest training queries: " in out


def test_explanations(zooter, folders):
    out = zooter("route", "-m", "./router", "--explain", "--exclude", NAMES[0], "Why?").stdout
    assert "most probable of 2 experts (argmax)" in out
    assert "excluded" in out and "$ / 1000" in out
    cheap = ["--policy", "cost_aware", "--set", "tolerance=1"]
    out = zooter("route", "-m", "./router", *cheap, "Why?").stdout
    assert NAMES[0] in out.splitlines()[3], "the chosen expert stands first, whatever its probability"
    assert "cheapest within 1 of the best" in zooter("route", "-m", "./router", "--explain", *cheap, "Why?").stdout


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["calibrate", "./router", "rewards", "--sets", "0.2", "--mean-price", "1"], "--sets and --mean-price"),
        (["calibrate", "./router", "rewards", "--sets", "0.001"], "999"),
        (["calibrate", "./router", "rewards", "--sets", "2"], "between 0 and 1"),
        (["calibrate", "./router", "rewards", "--strong-share", "0.5"], "--strong and --weak"),
        (["calibrate", "./router", "rewards", "--familiar", "0.9"], "--centroids"),
        (["calibrate", "you/router", "rewards"], "--output"),
        (["calibrate", "./router", "rewards", "-o", "rewards"], "is there already"),
        (["calibrate", "./router", "rewards", "--mean-price", "1e-9"], "already take"),
        (["route", "-m", "./router", "--policy", "best", "Why?"], "no policy 'best'"),
        (["route", "-m", "./router", "--set", "tolerance", "Why?"], "NAME=VALUE"),
        (["route", "-m", "./router", "--set", "patience=3", "Why?"], "no settings ['patience']"),
        (["route", "-m", "./router", "--exclude", "giant", "Why?"], "giant"),
        (["route", "-m", "./router", "--explain", "--json", "Why?"], "Give one of them"),
    ],
)
def test_mistakes(zooter, folders, command, message):
    before = {path.name: path.read_bytes() for path in (folders / "router").iterdir()}
    assert message in zooter(*command, check=False).stderr
    assert {path.name: path.read_bytes() for path in (folders / "router").iterdir()} == before
