"""Intervals and tests against scipy."""

import time

import numpy as np
import pytest
import scipy.stats
import torch

from zooter_hf.evaluation import bootstrap, compare
from zooter_hf.evaluation.bootstrap import bootstrap_means, percentile_intervals, sign_flip_test


@pytest.fixture(scope="module")
def values():
    return torch.rand(80, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 2


def test_the_interval_is_that_of_scipy(values):
    low, high = percentile_intervals(bootstrap_means(values, samples=20_000), 0.9)
    for column in range(2):
        expected = scipy.stats.bootstrap(
            (values[:, column].numpy(),), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile", rng=0
        ).confidence_interval
        assert low[column] == pytest.approx(expected.low, abs=2e-3)
        assert high[column] == pytest.approx(expected.high, abs=2e-3)


def test_missing_values_are_left_out(values):
    holes = torch.cat([values, torch.full((40, 2), torch.nan, dtype=torch.float64)])
    means = bootstrap_means(holes, samples=5000)
    assert not np.isnan(means).any()
    expected = values[:, 0].std(correction=0).item() / 80**0.5
    assert means[:, 0].std() == pytest.approx(expected, rel=0.1)
    assert means[:, 0].mean() == pytest.approx(values[:, 0].mean().item(), abs=2e-3)
    nothing = torch.full((3, 1), torch.nan)
    low, high = percentile_intervals(bootstrap_means(nothing, samples=10))
    assert np.isnan(low).all() and np.isnan(high).all()
    assert np.isnan(sign_flip_test(nothing)).all()


def test_subsets_are_resampled_by_themselves(values):
    """Subsets that agree within themselves leave nothing to chance, however different they are."""
    steady = torch.tensor([[0.0]] * 10 + [[1.0]] * 3)
    groups = [torch.arange(10), torch.arange(10, 13)]
    assert np.all(bootstrap_means(steady, groups, samples=50) == 0.5)
    assert bootstrap_means(steady, samples=50).std() > 0.05
    groups = [torch.arange(20), torch.arange(20, 80)]
    errors = [values[rows, 0].std(correction=0).item() / len(rows) ** 0.5 for rows in groups]
    spread = bootstrap_means(values, groups, samples=5000)[:, 0].std()
    assert spread == pytest.approx(np.hypot(*errors) / 2, rel=0.1)


def test_parts_are_as_random_as_the_whole(values, monkeypatch):
    whole = bootstrap_means(values, samples=999)
    monkeypatch.setattr(bootstrap, "CHUNK", 500)
    parts = bootstrap_means(values, samples=999)
    assert len(np.unique(parts[:, 0])) > 990
    assert parts.mean() == pytest.approx(whole.mean(), abs=2e-3)
    difference = values[:, :1] - values[:, 1:]
    assert 0 < sign_flip_test(difference, samples=999)[0] <= 1


def test_the_p_value_is_that_of_scipy():
    generator = np.random.default_rng(3)
    difference = generator.normal(0.12, 0.5, size=60)
    expected = scipy.stats.permutation_test(
        (difference, np.zeros(60)),
        lambda first, second, axis: (first - second).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=0,
    ).pvalue
    (p_value,) = sign_flip_test(torch.from_numpy(difference).unsqueeze(1), samples=20_000)
    assert 0.01 < expected < 0.3
    assert p_value == pytest.approx(expected, abs=0.01)


def test_a_small_p_value_is_counted_exactly():
    """Ten differences of one sign: two of the 1024 flips are as extreme."""
    (p_value,) = sign_flip_test(torch.full((10, 1), 0.1), samples=50_000)
    assert p_value == pytest.approx(2 / 1024, rel=0.4)


def test_equal_routings_differ_by_nothing():
    rewards = torch.rand(30)
    comparison = compare(rewards, rewards)
    assert comparison.difference == comparison.low == comparison.high == 0
    assert comparison.p_value == 1
    assert comparison.queries == 30


def test_a_comparison_is_paired():
    """Rewards that go up and down together: the difference is sure although each mean is not."""
    base = torch.rand(200, generator=torch.Generator().manual_seed(0))
    better = base + 0.01 + 0.001 * torch.randn(200, generator=torch.Generator().manual_seed(1))
    better[:20] = torch.nan
    comparison = compare(better, base)
    assert comparison.queries == 180
    assert 0.009 < comparison.low < comparison.difference < comparison.high < 0.011
    assert comparison.p_value == pytest.approx(1 / 2001)
    back = compare(base, better)
    assert back.difference == pytest.approx(-comparison.difference)
    assert back.p_value == comparison.p_value


def test_seeds(values):
    assert np.array_equal(bootstrap_means(values, samples=20, seed=1), bootstrap_means(values, samples=20, seed=1))
    assert not np.array_equal(bootstrap_means(values, samples=20, seed=1), bootstrap_means(values, samples=20, seed=2))


def test_comparisons_that_cannot_be_made():
    with pytest.raises(ValueError, match="same shape"):
        compare(torch.rand(3), torch.rand(4))
    with pytest.raises(ValueError, match="no query on which"):
        compare(torch.tensor([1.0, torch.nan]), torch.tensor([torch.nan, 1.0]))


def test_many_queries_are_quick():
    many = torch.rand(15_000, 20)
    start = time.perf_counter()
    bootstrap_means(many, samples=500)
    assert time.perf_counter() - start < 5
