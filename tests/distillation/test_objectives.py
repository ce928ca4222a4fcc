import math

import pytest
import torch

from zooter_hf.distillation import distillation_loss


NAN = float("nan")
LOGITS = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
MASK = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])


def test_rewards_by_squared_error_worked_by_hand():
    rewards = torch.tensor([[0.5, 0.0, NAN], [1.0, 1.0, 0.0], [NAN, NAN, NAN]])
    expected = ((0.25 + 1.0) + (1.0 + 1.0 + 0.0)) / 2  # per query the sum over its known experts; two queries count
    assert distillation_loss(LOGITS, rewards, MASK, "mse").item() == pytest.approx(expected)


def test_rewards_by_cross_entropy_worked_by_hand():
    rewards = torch.tensor([[0.5, 0.0, NAN], [1.0, 1.0, 0.0], [NAN, NAN, NAN]])

    def bce(logit, reward):
        p = 1 / (1 + math.exp(-logit))
        return -(reward * math.log(p) + (1 - reward) * math.log(1 - p))

    expected = (bce(0, 0.5) + bce(1, 0) + bce(2, 1) + bce(0, 1) + bce(0, 0)) / 2
    assert distillation_loss(LOGITS, rewards, MASK, "bce").item() == pytest.approx(expected, rel=1e-5)


def test_no_known_reward_is_no_loss():
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    for objective in ("kl", "bce", "mse"):
        logits = LOGITS.clone().requires_grad_()
        loss = distillation_loss(logits, torch.full((3, 3), NAN), nothing, objective)
        loss.backward()
        assert loss.item() == 0 and not logits.grad.any()
