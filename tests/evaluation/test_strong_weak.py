"""RouteLLM's measures against numbers worked by hand and the formulas of its code."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zooter_hf.evaluation.strong_weak import (
    average_performance_gap_recovered,
    call_performance_threshold,
    performance_gap_recovered,
    strong_weak_curve,
)


SCORES = torch.tensor([0.3, 0.9, 0.1, 0.8])
WEAK = torch.tensor([1.0, 0.0, 1.0, 0.0])
STRONG = torch.tensor([1.0, 1.0, 0.0, 1.0])


def measures(curve):
    return curve.shares.numpy(), curve.rewards.numpy()


def test_by_hand():
    """Two calls repair both failures of the weak model, the third is in vain, and the last one does harm."""
    curve = strong_weak_curve(SCORES, WEAK, STRONG)
    assert curve.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.rewards.tolist() == [0.5, 0.75, 1, 1, 0.75]
    assert curve.thresholds.tolist() == pytest.approx([np.inf, 0.9, 0.8, 0.3, 0.1])
    assert performance_gap_recovered(curve.rewards).tolist() == [0, 1, 2, 2, 1]
    assert average_performance_gap_recovered(*measures(curve)) == pytest.approx((0.5 + 1.5 + 2 + 1.5) / 4)
    assert call_performance_threshold(*measures(curve), 0.5) == pytest.approx(0.125)
    assert call_performance_threshold(*measures(curve), 1) == pytest.approx(0.25)


def test_the_random_router_is_the_diagonal():
    curve = strong_weak_curve(torch.zeros(4), WEAK, STRONG)
    assert curve.shares.tolist() == [0, 1]
    assert average_performance_gap_recovered(*measures(curve)) == 0.5
    for part in (0.2, 0.5, 0.8, 1):
        assert call_performance_threshold(*measures(curve), part) == pytest.approx(part)


def test_many_random_routers_are_half_as_good_as_the_strong_model():
    generator = torch.Generator().manual_seed(0)
    weak = torch.rand(400, generator=generator)
    curves = [strong_weak_curve(torch.rand(400, generator=generator), weak, weak + 1) for _ in range(20)]
    assert np.mean([average_performance_gap_recovered(*measures(curve)) for curve in curves]) == pytest.approx(0.5)
    strong = (weak + torch.rand(400, generator=generator)).round()
    curves = [strong_weak_curve(torch.rand(400, generator=generator), weak, strong) for _ in range(100)]
    mean = np.mean([average_performance_gap_recovered(*measures(curve)) for curve in curves])
    assert mean == pytest.approx(0.5, abs=0.02)


@given(st.integers(0, 10_000))
def test_without_ties_it_is_the_formula_of_routellm(seed):
    """`(AUC - AUC of weak) / (AUC of strong - AUC of weak)` by the trapezoidal rule."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randperm(30, generator=generator).double()
    weak = torch.rand(30, generator=generator, dtype=torch.float64)
    strong = weak + torch.rand(30, generator=generator, dtype=torch.float64)
    shares = np.arange(31) / 30
    accuracy = [
        torch.where(scores >= 30 - calls, strong, weak).mean().item()  # the `calls` highest scores
        for calls in range(31)
    ]
    area, weak_area = np.trapezoid(accuracy, shares), weak.mean().item()
    expected = (area - weak_area) / (strong.mean().item() - weak_area)
    curve = strong_weak_curve(scores, weak, strong)
    assert average_performance_gap_recovered(*measures(curve)) == pytest.approx(expected)
    # The strong model is better on every query: accuracy ascends, as its interpolation needs.
    wanted = 0.8 * (strong.mean().item() - weak_area) + weak_area
    assert call_performance_threshold(*measures(curve), 0.8) == pytest.approx(np.interp(wanted, accuracy, shares))


def test_queries_that_only_one_has_answered_are_left_out():
    nan = torch.nan
    weak = torch.cat([WEAK, torch.tensor([nan, 0.0, nan])])
    strong = torch.cat([STRONG, torch.tensor([1.0, nan, nan])])
    scores = torch.cat([SCORES, torch.tensor([0.7, 0.6, 0.5])])
    assert strong_weak_curve(scores, weak, strong).rewards.tolist() == [0.5, 0.75, 1, 1, 0.75]
    with pytest.raises(ValueError, match="no query on which the rewards of both"):
        strong_weak_curve(scores[4:], weak[4:], strong[4:])


def test_a_gap_that_is_none():
    shares, rewards = np.array([0.0, 0.5, 1.0]), np.array([[0.5, 0.6, 0.5], [0.5, 0.6, 0.7], [0.5, 0.4, 0.3]])
    assert average_performance_gap_recovered(shares, rewards) == pytest.approx([np.nan, 0.5, np.nan], nan_ok=True)
    recovered = call_performance_threshold(np.tile(shares, (3, 1)), rewards, 0.5)
    assert recovered == pytest.approx([np.nan, 0.5, np.nan], nan_ok=True)


@pytest.mark.parametrize("part", [0, -0.1, 1.1])
def test_a_part_of_the_gap_that_is_none(part):
    with pytest.raises(ValueError, match="above 0 and is at most 1"):
        call_performance_threshold(np.array([0.0, 1.0]), np.array([0.0, 1.0]), part)


def test_a_thinned_curve_keeps_its_ends():
    generator = torch.Generator().manual_seed(0)
    curve = strong_weak_curve(*torch.rand(3, 500, generator=generator))
    thin = curve.thinned(20)
    assert len(thin.shares) == 20
    assert (thin.shares[0], thin.shares[-1]) == (0, 1)
    assert set(thin.rewards.tolist()) <= set(curve.rewards.tolist())
    assert curve.thinned(501) is curve
