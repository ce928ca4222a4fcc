"""Curves, hulls and AIQ against numbers worked by hand, and their properties."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from zooter_hf.evaluation.cost_quality import (
    aiq,
    convex_hull,
    cost_quality_curve,
    cost_to_reach,
    hull_rewards,
    reward_within,
    sweep_cost_weights,
)


nan = torch.nan
# Two queries, three experts; b is never worth its cost for the second query.
QUALITY = torch.tensor([[0.2, 0.6, 0.8], [0.5, 0.5, 0.6]])
EXPECTED = torch.tensor([1.0, 2.0, 4.0])
REWARDS = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
COSTS = torch.tensor([[1.0, 2.0, 4.0], [1.0, 3.0, 5.0]])

eighths = st.integers(0, 8).map(lambda number: number / 8)


@st.composite
def tables(draw):
    """Scores and costs with many ties."""
    queries, experts = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    quality = draw(st.lists(st.lists(eighths, min_size=experts, max_size=experts), min_size=queries, max_size=queries))
    costs = draw(
        st.lists(st.lists(st.integers(0, 6), min_size=experts, max_size=experts), min_size=queries, max_size=queries)
    )
    return torch.tensor(quality, dtype=torch.float64), torch.tensor(costs, dtype=torch.float64)


point_lists = st.lists(st.tuples(st.integers(0, 20), st.integers(-10, 10)), min_size=1, max_size=12)


def test_the_curve_by_hand():
    """The first query goes to b at 0.2 / 2 and to a at 0.4 / 1; the second to a at 0.1 / 3."""
    curve = cost_quality_curve(QUALITY, EXPECTED, REWARDS, COSTS)
    assert curve.weights.tolist() == pytest.approx([0, 0.1 / 3, 0.1, 0.4], rel=1e-6)
    assert curve.costs.tolist() == [4.5, 2.5, 1.5, 1]
    assert curve.rewards.tolist() == [1, 1, 1, 0.5]
    assert curve.shares.tolist() == [[0, 0, 1], [0.5, 0, 0.5], [0.5, 0.5, 0], [1, 0, 0]]


def test_expected_costs_of_every_query():
    """The dear expert is cheap for the second query, and stays."""
    expected = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 1.0]])
    curve = cost_quality_curve(QUALITY, expected, REWARDS, COSTS)
    assert curve.costs.tolist() == [4.5, 3.5, 3]
    assert curve.rewards.tolist() == [1, 1, 0.5]


def test_what_is_not_known_is_not_chosen():
    """c is best but its cost is missing; of the second query nothing is known, and a must not answer the third."""
    quality = torch.tensor([[0.1, 0.5, 0.9], [0.1, 0.5, 0.9], [nan, 0.5, 0.9]])
    rewards = torch.tensor([[0.25, 0.75, 1.0], [nan, 1.0, nan], [1.0, 0.5, 0.0]])
    costs = torch.tensor([[1.0, 2.0, nan], [1.0, nan, 4.0], [1.0, 2.0, 4.0]])
    curve = cost_quality_curve(quality, EXPECTED, rewards, costs)
    assert curve.costs.tolist() == [3, 2, 1.5]
    assert curve.rewards.tolist() == [0.375, 0.625, 0.375]
    assert curve.shares.tolist() == [[0, 0.5, 0.5], [0, 1, 0], [0.5, 0.5, 0]]


@given(tables())
def test_the_ends_are_quality_alone_and_the_cheapest(table):
    quality, costs = table
    sweep = sweep_cost_weights(quality, costs)
    first, last = sweep.chosen(torch.tensor([0.0, 1e9])).unbind(dim=1)
    for query in range(len(quality)):
        of_query = list(zip(quality[query].tolist(), costs[query].tolist(), strict=True))
        assert of_query[first[query]] == max(of_query, key=lambda each: (each[0], -each[1]))
        assert of_query[last[query]] == max(of_query, key=lambda each: (-each[1], each[0]))


@given(tables(), st.integers(0, 1000))
def test_the_curve_is_that_of_trying_every_weight(table, seed):
    quality, expected = table
    rewards, costs = torch.rand(2, *quality.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    curve = cost_quality_curve(quality, expected, rewards, costs)
    assert curve.weights[0] == 0
    assert (curve.weights.diff() > 0).all()
    ends = [*curve.weights.tolist(), 2 * curve.weights[-1].item() + 1]
    for point, (low, high) in enumerate(pairwise(ends)):
        if high - low < 1e-9:
            continue  # the same weight, reached by two divisions
        values = quality - (low + high) / 2 * expected
        # Experts of the same score and cost are the same to a router.
        best = values >= values.amax(dim=1, keepdim=True) - 1e-12
        assume((best.sum(dim=1) == 1).all())
        chosen = best.double().argmax(dim=1, keepdim=True)
        assert curve.costs[point].item() == pytest.approx(costs.gather(1, chosen).mean().item())
        assert curve.rewards[point].item() == pytest.approx(rewards.gather(1, chosen).mean().item())
        shares = chosen.flatten().bincount(minlength=quality.shape[1]) / len(quality)
        assert curve.shares[point].tolist() == pytest.approx(shares.tolist())


@given(tables())
def test_a_router_that_knows_the_truth_is_all_hull(table):
    """With true scores and costs no mixture of points of its curve is better than the curve."""
    quality, costs = table
    curve = cost_quality_curve(quality, costs, quality, costs)
    assert (curve.costs.diff() <= 1e-12).all()
    assert (curve.rewards.diff() <= 1e-12).all()
    heights = hull_rewards(curve.costs, curve.rewards, curve.costs)
    assert curve.rewards.numpy() == pytest.approx(heights)


def test_a_thinned_curve_keeps_its_ends_and_its_hull():
    generator = torch.Generator().manual_seed(0)
    quality, rewards, costs = torch.rand(3, 300, 4, generator=generator, dtype=torch.float64)
    full = cost_quality_curve(quality, torch.tensor([0.1, 0.2, 0.3, 0.4]), rewards, costs)
    thin = full.thinned(20)
    assert len(full.weights) > 200
    assert 20 <= len(thin.weights) < 60
    for name in ("weights", "costs", "rewards"):
        of_full, of_thin = getattr(full, name), getattr(thin, name)
        assert (of_thin[0], of_thin[-1]) == (of_full[0], of_full[-1])
    corners = convex_hull(full.costs, full.rewards)
    assert set(full.costs[corners].tolist()) <= set(thin.costs.tolist())
    assert full.thinned(len(full.weights)) is full


def test_the_hull_by_hand():
    costs, rewards = [1, 2, 3, 4, 5, 2, 6], [0.5, 0.4, 0.9, 0.8, 1.0, 0.75, 1.0]
    assert convex_hull(costs, rewards).tolist() == [0, 5, 2, 4]
    heights = hull_rewards(costs, rewards, [0.5, 1, 2.5, 4, 9])
    assert heights == pytest.approx([np.nan, 0.5, 0.825, 0.95, 1.0], nan_ok=True)


def test_points_on_a_line_and_doubled_points_are_no_corners():
    assert convex_hull([1, 2, 3, 1, 3], [0, 1, 2, 0, 2]).tolist() == [0, 2]
    assert convex_hull([2, 2, 2], [1, 3, 2]).tolist() == [1]
    assert convex_hull([1, 2, np.nan], [1, np.nan, 3]).tolist() == [0]


@given(point_lists)
def test_the_hull_is_concave_and_above_all_points(points):
    costs, rewards = map(np.array, zip(*points, strict=True))
    corners = convex_hull(costs, rewards)
    steps, gains = np.diff(costs[corners]), np.diff(rewards[corners])
    assert (steps > 0).all() and (gains > 0).all()
    assert (np.diff(gains / steps) < 0).all()
    assert (hull_rewards(costs, rewards, costs) >= rewards - 1e-9).all()
    assert costs[corners[0]] == costs.min()
    assert rewards[corners[-1]] == rewards.max()


def test_aiq_by_hand():
    """From (1, 0.5) to (3, 0.9) the mean is 0.7, and beyond it stays 0.9."""
    costs, rewards = [3, 1, 2], [0.9, 0.5, 0.1]
    assert aiq(costs, rewards, (1, 3)) == pytest.approx(0.7)
    assert aiq(costs, rewards, (1, 5)) == pytest.approx((2 * 0.7 + 2 * 0.9) / 4)
    assert aiq(costs, rewards, (2, 3)) == pytest.approx(0.8)
    assert aiq(costs, rewards, (4, 8)) == pytest.approx(0.9)
    assert aiq(costs, rewards, (2, 2)) == pytest.approx(0.7)
    # Cheaper than the cheapest there is only the null router, which answers nothing.
    assert aiq(costs, rewards, (0, 1)) == pytest.approx(0.25)
    assert aiq(costs, rewards, (0.5, 1)) == pytest.approx(0.375)
    assert aiq(costs, rewards, (0, 1), floor=-0.5) == pytest.approx(0)
    assert aiq([0, 1], [0.4, 0.6], (0, 1)) == pytest.approx(0.5)


@pytest.mark.parametrize("wrong", [(-1, 2), (2, 1), (0, np.inf), (np.nan, 1)])
def test_a_range_that_is_none(wrong):
    with pytest.raises(ValueError, match="lowest and a highest cost in US dollars"):
        aiq([1], [1], wrong)


@given(point_lists, st.tuples(st.integers(0, 20), st.integers(-10, 10)), st.integers(0, 10))
def test_another_point_never_lowers_aiq(points, another, width):
    costs, rewards = zip(*points, strict=True)
    low = max(min(costs), another[0])  # both hulls are there
    before = aiq(costs, rewards, (low, low + width))
    after = aiq([*costs, another[0]], [*rewards, another[1]], (low, low + width))
    assert after >= before - 1e-9
    assert min(rewards) - 1e-9 <= before <= max(rewards) + 1e-9


def test_reading_a_curve_at_a_budget_and_at_a_quality():
    costs = np.array([[4.0, 2.0, 1.0], [5.0, 3.0, 2.0]])
    rewards = np.array([[0.9, 0.95, 0.5], [0.8, 0.7, 0.6]])
    assert reward_within(costs, rewards, np.array([3.0, 1.0])) == pytest.approx([0.95, np.nan], nan_ok=True)
    assert reward_within(costs[0], rewards[0], 1.0) == 0.5
    assert cost_to_reach(costs, rewards, np.array([0.9, 0.9])).tolist() == [2, np.inf]
    assert cost_to_reach(costs[0], np.array([0.1 + 0.7, 0.5, 0.4]), 0.8) == 4  # a sum that is rounded down
