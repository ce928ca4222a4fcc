"""Statistics of a table, against values worked by hand."""

import pytest
import torch

from zooter_hf import RewardTable
from zooter_hf.rewards import regret


def test_summary_by_hand():
    table = RewardTable.from_rows(
        [
            {"query": "q1", "rewards": {"a": 1.0, "b": 0.0}, "tags": ["t", "u"], "subset": "s"},
            {"query": "q2", "rewards": {"a": 0.0, "b": 1.0}, "tags": ["t"], "subset": "s"},
            {"query": "q3", "rewards": {"a": 0.5, "b": 0.5}, "subset": "r", "costs": {"a": 0.25, "b": None}},
            {"query": "q4", "rewards": {"a": 0.3, "b": None}, "tags": ["u"]},
        ]
    )
    summary = table.summary()
    assert summary.overall.queries == 4
    assert summary.overall.means == pytest.approx({"a": 0.45, "b": 0.5})
    assert summary.overall.best_expert == "b"
    assert summary.overall.oracle == pytest.approx((1 + 1 + 0.5 + 0.3) / 4)
    assert summary.overall.possible_gain == pytest.approx(0.2)
    assert summary.overall.random == pytest.approx(0.475)
    assert summary.experts["a"].best_share == pytest.approx((1 + 0.5 + 1) / 4)
    assert summary.experts["a"].alone_best_share == pytest.approx(0.5)
    assert summary.experts["b"].missing == 1
    assert summary.experts["a"].mean_cost == 0.25 and summary.experts["b"].mean_cost is None
    assert summary.subsets["s"].means == pytest.approx({"a": 0.5, "b": 0.5})
    assert summary.subsets.keys() == {"r", "s"}
    assert summary.tags["u"].means == pytest.approx({"a": 0.65, "b": 0.0})
    assert summary.untagged == 1


def test_regret_by_hand():
    nan = torch.nan
    rewards = torch.tensor([[1.0, 0.0], [0.2, 0.8], [nan, 0.4], [nan, nan]])
    scores = torch.tensor([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
    torch.testing.assert_close(regret(rewards, scores), torch.tensor([0.0, 0.6, 0.0, nan]), equal_nan=True)
