"""Calibration finds what was done to the logits."""

import json

import pytest
import torch

from zooter_hf import RewardTable, ZooterForRouting, calibrate
from zooter_hf.routing import predict, predict_embedded


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_temperature_is_found(make_world, temperature):
    world = make_world(queries=3000, change=lambda logits: logits / temperature)
    before = predict_embedded(world.router, world.embeddings).probabilities
    found = calibrate(world.router, world.table, method="auto", embeddings=world.embeddings)
    assert found.method == "temperature" and found.scale is None
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert world.router.config.temperature == found.temperature
    assert found.reward_after == found.reward_before, "a temperature changes no decision"
    if temperature != 1.0:
        assert found.ece_after < found.ece_before / 2 and found.nll_after < found.nll_before
    assert found.ece_after < 0.03
    after = predict_embedded(world.router, world.embeddings).probabilities
    assert torch.equal(after.argmax(1), before.argmax(1))
    json.dumps(found.to_dict())


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_vectors_are_taken_where_they_help(make_world, seed):
    scale, bias = torch.tensor([1.0, 0.3, 0.6]), torch.tensor([0.0, 1.0, -1.0])
    world = make_world(queries=4000, change=lambda logits: logits * scale + bias, seed=seed)
    found = calibrate(world.router, world.table, method="auto", embeddings=world.embeddings)
    assert found.method == "vector" and found.temperature == 1.0
    assert torch.tensor(found.scale) == pytest.approx(scale, abs=0.2)
    # What is added to all experts alike makes no difference.
    differences = torch.tensor(found.bias) - found.bias[0]
    assert differences == pytest.approx(bias, abs=0.25)
    assert found.tried["vector"] < found.tried["temperature"] < found.tried["none"]
    assert found.reward_after > found.reward_before
    assert calibrate(world.router, world.table, method="temperature", embeddings=world.embeddings).scale is None
    assert world.router.config.calibration_scale is None, "what was calibrated before is replaced"


def test_missing_rewards_and_removed_experts_take_no_part(make_world):
    world = make_world(change=lambda logits: logits / 2)
    rewards = world.table.rewards
    rewards[:, 2] = torch.nan
    world.router.config.removed_experts = [world.router.expert_names[2]]
    partly = rewards.clone()
    partly[:, 2] = 1.0  # of an expert that is gone
    found = [
        calibrate(world.router, world.make_table(each), method="temperature", embeddings=world.embeddings)
        for each in (rewards, partly)
    ]
    assert found[0].temperature != pytest.approx(1.0, rel=0.2)
    assert found[0].ece_after < 0.06


def test_it_is_stored_and_used(make_world, tmp_path):
    world = make_world(queries=60, change=lambda logits: logits / 3)
    calibrate(world.router, world.table, method="vector", folds=2)
    world.router.save_pretrained(tmp_path / "router")
    loaded = ZooterForRouting.from_pretrained(tmp_path / "router")
    predictions = predict(loaded, list(world.table.queries)[:5])
    config = loaded.config
    expected = torch.softmax(
        predictions.logits * torch.tensor(config.calibration_scale) + torch.tensor(config.calibration_bias), dim=1
    )
    torch.testing.assert_close(predictions.probabilities, expected)


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([[1.0, 0.0, 0.0]] * 40, {}, "nothing to calibrate"),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], {}, "folds"),
        ([[1.0, 0.0, 0.0]] * 40, {"method": "magic"}, "magic"),
    ],
)
def test_mistakes(make_world, rows, settings, message):
    world = make_world(queries=10)
    with pytest.raises(ValueError, match=message):
        calibrate(world.router, world.make_table(torch.tensor(rows)), **settings)
    assert world.router.config.temperature == 1.0


def test_other_experts(make_world):
    world = make_world(queries=10)
    table = RewardTable.from_rows([{"query": "Why?", "rewards": {"a": 1.0, "b": 0.0}}])
    with pytest.raises(ValueError, match=r"math-7b.*\['a', 'b'\]"):
        calibrate(world.router, table)
