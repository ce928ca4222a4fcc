"""Metrics against scipy, and their properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from zooter_hf.evaluation import metrics


nan = torch.nan


def test_kl_is_that_of_scipy():
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(50, 4, generator=generator, dtype=torch.float64).softmax(dim=1)
    router = torch.randn(50, 4, generator=generator, dtype=torch.float64).softmax(dim=1)
    expected = entropy(targets.numpy(), router.numpy(), axis=1).mean()
    assert metrics.kl_to_router(targets, router) == pytest.approx(expected, rel=1e-5)
    assert metrics.kl_to_router(router, router) == pytest.approx(0, abs=1e-6)


def test_kl_is_that_of_the_known_experts():
    targets = torch.tensor([[0.8, 0.2, 0.0], [0.3, 0.3, 0.4], [0.0, 0.0, 0.0]])
    router = torch.tensor([[0.1, 0.4, 0.5], [0.2, 0.2, 0.6], [0.2, 0.2, 0.6]])
    known = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    expected = (entropy([0.8, 0.2], [0.2, 0.8]) + entropy([0.3, 0.3, 0.4], [0.2, 0.2, 0.6])) / 2
    assert metrics.kl_to_router(targets, router, known) == pytest.approx(expected, rel=1e-5)
    # What a target says of an expert that is not known does not count.
    stray = torch.tensor([[0.4, 0.1, 0.5], [0.3, 0.3, 0.4], [0.0, 0.0, 0.0]])
    assert metrics.kl_to_router(stray, router, known) == pytest.approx(expected, rel=1e-5)


def test_a_probability_of_zero_costs_much_and_not_infinitely_much():
    loss = metrics.kl_to_router(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert 80 < loss < 100


def test_a_certain_router_is_in_the_last_bin():
    bins = metrics.reliability(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([0]), bins=4)
    assert [each.queries for each in bins] == [0, 0, 0, 1]
    assert bins[-1].confidence == bins[-1].accuracy == 1
    assert bins[0].confidence is None
    assert metrics.expected_calibration_error(bins) == 0


def test_a_router_that_knows_its_chances_is_calibrated():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(40_000, 3, generator=generator).mul(2).softmax(dim=1)
    best = torch.multinomial(probabilities, 1, generator=generator)
    rewards = torch.zeros_like(probabilities).scatter(1, best, 1.0)
    chosen = probabilities.argmax(dim=1)
    assert metrics.expected_calibration_error(metrics.reliability(probabilities, rewards, chosen)) < 0.01
    overconfident = probabilities.pow(3) / probabilities.pow(3).sum(dim=1, keepdim=True)
    assert metrics.expected_calibration_error(metrics.reliability(overconfident, rewards, chosen)) > 0.08


def test_ties_are_the_chance_of_being_right():
    """Three experts that are always equally good: certainty is wrong two times out of three."""
    rewards = torch.ones(6, 3)
    chosen = torch.zeros(6, dtype=torch.long)
    even = metrics.reliability(torch.full((6, 3), 1 / 3), rewards, chosen)
    assert metrics.expected_calibration_error(even) == pytest.approx(0, abs=1e-6)
    sure = metrics.reliability(torch.tensor([[1.0, 0.0, 0.0]]).expand(6, 3), rewards, chosen)
    assert metrics.expected_calibration_error(sure) == pytest.approx(2 / 3)
    assert metrics.top1_agreement(rewards, chosen) == 1


def test_mean_task_rank_and_uplift_by_hand():
    singles = torch.tensor([[0.5, 0.6, 0.7], [0.5, 0.5, 0.2], [nan, 0.9, 0.1], [0.1, 0.2, 0.3]], dtype=torch.float64)
    scores = torch.tensor([0.65, 0.5, 0.05, nan], dtype=torch.float64)
    # Second of four; first, with two others; third of three; the last subset is not known.
    assert metrics.mean_task_rank(scores, singles) == pytest.approx((2 + 1 + 3) / 3)
    assert metrics.uplift(scores, singles) == pytest.approx(1 / 3)


def test_rounding_makes_no_better_model():
    singles = torch.tensor([[0.1 + 0.2]], dtype=torch.float64)
    scores = torch.tensor([0.3], dtype=torch.float64)
    assert singles.item() > scores.item()
    assert metrics.mean_task_rank(scores, singles) == 1
    assert metrics.uplift(scores, singles) == 1


def test_an_average_of_subsets_counts_each_the_same():
    values = torch.tensor([[1.0], [0.0], [0.0], [nan], [1.0]])
    groups = metrics.group_by_subset(["s", "s", "s", "s", "r"])
    assert list(groups) == ["r", "s"]
    assert metrics.average_over(values, list(groups.values())).item() == pytest.approx((1 + 1 / 3) / 2)
    assert metrics.average_over(values, [torch.arange(5)]).item() == pytest.approx(2 / 4)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10_000))
def test_ranks_and_uplift_stay_in_their_range(subsets, experts, seed):
    generator = torch.Generator().manual_seed(seed)
    singles = torch.rand(subsets, experts, generator=generator, dtype=torch.float64)
    scores = torch.rand(subsets, generator=generator, dtype=torch.float64)
    rank, uplift = metrics.mean_task_rank(scores, singles), metrics.uplift(scores, singles)
    assert 1 <= rank <= experts + 1
    assert 0 <= uplift <= 1
    assert (rank == 1) == (uplift == 1)


def test_without_a_known_choice_there_is_no_reward():
    scores = torch.tensor([[nan, 0.4], [0.3, 0.4]])
    rewards = torch.tensor([[1.0, nan], [1.0, nan]])
    values = metrics.known_choice_rewards(scores, rewards)
    torch.testing.assert_close(values, torch.tensor([nan, 1.0]), equal_nan=True)
