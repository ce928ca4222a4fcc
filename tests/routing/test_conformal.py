import hashlib
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from zooter_hf.routing.binomial import clopper_pearson
from zooter_hf.routing.conformal import (
    KINDS,
    NOISE,
    augmented_sets,
    average_threshold,
    calibrate_groups,
    calibrate_threshold,
    expert_sets,
    first_good,
    good_experts,
    nonconformity,
    queries_needed,
    safe_threshold,
    tie_noise,
    with_null,
)


NAN = float("nan")
# By hand, with the null expert last: gaps, and the first good one (marked by its reward).
#   0.9 0.2 | 0.1   gaps 0.0 0.7 | 0.8    good: the first        needs 0.0
#   0.6 0.5 | 0.4   gaps 0.0 0.1 | 0.2    good: the second       needs 0.1
#   0.3 0.1 | 0.7   gaps 0.4 0.6 | 0.0    good: none, so null    needs 0.0
#   0.8 0.4 | 0.2   gaps 0.0 0.4 | 0.6    good: none, so null    needs 0.6
PROBABILITIES = torch.tensor([[0.9, 0.2], [0.6, 0.5], [0.3, 0.1], [0.8, 0.4]], dtype=torch.float64)
REWARDS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.2], [0.0, NAN]])


def world(queries, seed, experts=4):
    """Queries whose experts are each correct with a known probability, of which the router sees a blurred version."""
    generator = torch.Generator().manual_seed(seed)
    chances = torch.rand(queries, experts, generator=generator, dtype=torch.float64)
    rewards = (torch.rand(queries, experts, generator=generator) < chances).double()
    blurred = chances + 0.2 * torch.randn(queries, experts, generator=generator, dtype=torch.float64)
    return blurred.clamp(0, 1), rewards


def risk(probabilities, rewards, kind, noise=None):
    """Returns a function of the threshold: how many sets hold no good expert."""
    good = with_null(good_experts(rewards))
    needed = first_good(nonconformity(probabilities, kind, noise), good)
    missed = ~(augmented_sets(probabilities, 0.3, kind, noise) & good).any(dim=1)
    assert torch.equal(missed, needed > 0.3), "needed thresholds are those of the sets"
    return lambda threshold: (needed > threshold).double().mean().item()


def test_good_is_correct_or_close_to_the_best():
    rewards = torch.tensor([[1.0, 0.5, 0.51, NAN], [0.2, 0.0, 0.1, 0.1], [NAN, NAN, NAN, NAN]])
    assert good_experts(rewards).tolist() == [[True, False, True, False], [False] * 4, [False] * 4]
    assert good_experts(rewards, correct_above=0.1)[1].tolist() == [True, False, False, False]
    assert good_experts(rewards, margin=0.0).tolist() == [
        [True, False, False, False],
        [True, *[False] * 3],
        [False] * 4,
    ]
    assert good_experts(rewards, margin=0.125)[1].tolist() == [True, False, True, True]
    with pytest.raises(ValueError, match="margin.*-1"):
        good_experts(rewards, margin=-1)
    with pytest.raises(ValueError, match=r"\(queries, experts\).*\(4,\)"):
        good_experts(rewards[0])


def test_the_null_expert_is_good_exactly_where_no_other_is():
    assert with_null(good_experts(REWARDS))[:, -1].tolist() == [False, False, True, True]


def test_nonconformity_by_hand():
    gaps = [[0.0, 0.7, 0.8], [0.0, 0.1, 0.2], [0.4, 0.6, 0.0], [0.0, 0.4, 0.6]]
    torch.testing.assert_close(nonconformity(PROBABILITIES, "gap"), torch.tensor(gaps, dtype=torch.float64))
    complements = [[0.1, 0.8, 0.9], [0.4, 0.5, 0.6], [0.7, 0.9, 0.3], [0.2, 0.6, 0.8]]
    torch.testing.assert_close(
        nonconformity(PROBABILITIES, "complement"), torch.tensor(complements, dtype=torch.float64)
    )


def test_gains_by_hand():
    """The second expert counts only where the first is not good; the null expert is always in the set."""
    gains = [[0.9, 0.02, 1.0], [0.6, 0.2, 1.0], [0.3, 0.07, 1.0], [0.8, 0.08, 1.0]]
    torch.testing.assert_close(
        1 - nonconformity(PROBABILITIES, "gain"), torch.tensor(gains, dtype=torch.float64), atol=1e-5, rtol=0
    )
    swapped = nonconformity(PROBABILITIES.flip(1), "gain")
    torch.testing.assert_close(swapped[:, [1, 0, 2]], nonconformity(PROBABILITIES, "gain"))
    calibrated = calibrate_threshold(PROBABILITIES, REWARDS, alpha=0.4, kind="gain")
    assert calibrated.threshold == pytest.approx(0.1, abs=1e-5)
    assert calibrated.misses == 1
    noise = tie_noise(["q"], 6)
    certain = nonconformity(torch.ones(1, 6), "gain", noise)[0, :-1]
    assert torch.equal(certain.argsort(), noise[0, :-1].argsort(descending=True)), "certainty leaves an order too"
    assert bool((certain <= 1).all())


def test_thresholds_by_hand():
    needed = first_good(nonconformity(PROBABILITIES), with_null(good_experts(REWARDS)))
    assert needed.tolist() == pytest.approx([0.0, 0.1, 0.0, 0.6])
    # k = ceil(5 * 0.8) = 4, ceil(5 * 0.6) = 3, ceil(5 * 0.4) = 2
    for alpha, threshold, missed in ((0.2, 0.6, 0), (0.4, 0.1, 1), (0.6, 0.0, 2)):
        calibrated = calibrate_threshold(PROBABILITIES, REWARDS, alpha=alpha)
        assert calibrated.threshold == pytest.approx(threshold)
        assert (calibrated.queries, calibrated.misses, calibrated.alpha) == (4, missed, alpha)
    # 1 - 0.3 ** (1 / 4) = 0.26 bounds the risk of no miss in 4; of one miss the bound is 0.49.
    assert calibrate_threshold(PROBABILITIES, REWARDS, alpha=0.3, delta=0.3).threshold == pytest.approx(0.6)
    assert calibrate_threshold(PROBABILITIES, REWARDS, alpha=0.5, delta=0.3).threshold == pytest.approx(0.6)
    assert calibrate_threshold(PROBABILITIES, REWARDS, alpha=0.53, delta=0.3).threshold == pytest.approx(0.1)


def test_sets_by_hand():
    assert expert_sets(PROBABILITIES, 0.15).tolist() == [[True, False], [True, True], [False, False], [True, False]]
    assert augmented_sets(PROBABILITIES, 0.15)[2].tolist() == [False, False, True], "an abstention"
    of_each = torch.tensor([0.75, 0.0, 0.5, 0.45])
    assert expert_sets(PROBABILITIES, of_each).tolist() == [[True, True], [True, False], [True, False], [True, True]]
    assert augmented_sets(PROBABILITIES, 0.15, "complement").any(dim=1).tolist() == [True, False, False, False]


def test_queries_without_rewards_are_left_out():
    probabilities = torch.cat([PROBABILITIES, torch.full((20, 2), 0.5)])
    rewards = torch.cat([REWARDS, torch.full((20, 2), NAN)])
    assert calibrate_threshold(probabilities, rewards, alpha=0.4) == calibrate_threshold(
        PROBABILITIES, REWARDS, alpha=0.4
    )


@given(st.integers(1, 99), st.integers(1, 300))
@settings(deadline=None)
def test_the_rank_is_exact(percent, queries):
    """Against whole numbers: rounding must not move the rank by one."""
    needed = torch.arange(1, queries + 1, dtype=torch.float64)
    rank = math.ceil((queries + 1) * (1 - Fraction(percent, 100)))
    if rank > queries:
        with pytest.raises(
            ValueError, match=f"{queries} calibration queries.*at least {queries_needed(percent / 100)}"
        ):
            average_threshold(needed, percent / 100)
    else:
        assert average_threshold(needed, percent / 100) == rank


@given(st.integers(1, 99), st.sampled_from([0.01, 0.05, 0.1, 0.5]))
@settings(deadline=None)
def test_queries_needed_are_the_fewest_that_do(percent, delta):
    alpha = percent / 100
    fewest = queries_needed(alpha)
    assert fewest == next(n for n in range(1, 200) if math.ceil((n + 1) * (1 - Fraction(percent, 100))) <= n)
    fewest = queries_needed(alpha, delta)
    assert (1 - alpha) ** fewest <= delta * (1 + 1e-9)
    assert fewest == 1 or (1 - alpha) ** (fewest - 1) > delta * (1 - 1e-9)
    safe_threshold(torch.zeros(fewest), alpha, delta)
    if fewest > 1:
        with pytest.raises(ValueError, match=f"at least {fewest}"):
            safe_threshold(torch.zeros(fewest - 1), alpha, delta)


def test_usual_numbers_of_queries():
    assert [queries_needed(alpha) for alpha in (0.2, 0.1, 0.05, 0.01)] == [4, 9, 19, 99]
    assert queries_needed(0.05, 0.05) == 59  # the rule of three


@given(st.integers(1, 400), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
@settings(deadline=None)
def test_clopper_pearson_is_a_quantile_of_beta(queries, data, confidence):
    missed = data.draw(st.integers(0, queries))
    expected = 1.0 if missed == queries else stats.beta.ppf(confidence, missed + 1, queries - missed)
    assert clopper_pearson(missed, queries, confidence) == pytest.approx(expected, rel=1e-6)


@given(st.integers(20, 400), st.sampled_from([0.2, 0.3, 0.5]), st.sampled_from([0.05, 0.1, 0.4]))
@settings(deadline=None)
def test_the_safe_threshold_is_the_smallest_within_the_bound(queries, alpha, delta):
    threshold = int(safe_threshold(torch.arange(queries), alpha, delta))
    missed = queries - 1 - threshold
    assert clopper_pearson(missed, queries, 1 - delta) <= alpha + 1e-9
    assert clopper_pearson(missed + 1, queries, 1 - delta) > alpha


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_the_promise_on_average_is_kept(kind, alpha):
    """Over many calibrations of few queries; without the + 1 of the rank, 39 are too few for it."""
    probabilities, rewards = world(20_000, seed=1)
    noise = torch.rand(20_000, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * NOISE
    risk_at = risk(probabilities[39 * 300 :], rewards[39 * 300 :], kind, noise[39 * 300 :])
    risks = []
    for start in range(0, 39 * 300, 39):
        part = slice(start, start + 39)
        calibrated = calibrate_threshold(probabilities[part], rewards[part], alpha=alpha, kind=kind, noise=noise[part])
        risks.append(risk_at(calibrated.threshold))
    mean = sum(risks) / len(risks)
    assert mean <= alpha + 0.005  # two standard errors
    if alpha < 0.2 or kind != "gap":  # a gap of 0 is never left out, which is good enough for 0.3
        assert mean >= alpha - 1 / 40 - 0.005, "the sets are no larger than they need be"


@pytest.mark.parametrize("kind", KINDS)
def test_the_promise_with_high_probability_is_kept(kind):
    probabilities, rewards = world(40_000, seed=3)
    risk_at = risk(probabilities[30_000:], rewards[30_000:], kind)
    risks = []
    for start in range(0, 30_000, 100):
        part = slice(start, start + 100)
        calibrated = calibrate_threshold(probabilities[part], rewards[part], alpha=0.1, kind=kind, delta=0.2)
        risks.append(risk_at(calibrated.threshold))
    failed = sum(each > 0.1 for each in risks) / len(risks)
    assert failed <= 0.2 + 0.04
    assert failed >= 0.03, "it is no more careful than it need be"


@given(st.integers(0, 50), st.floats(0.05, 0.9), st.floats(0.05, 0.9), st.sampled_from(KINDS))
@settings(deadline=None, max_examples=30)
def test_who_risks_more_gets_smaller_sets(seed, alpha, other, kind):
    probabilities, rewards = world(60, seed)
    careful, careless = (
        expert_sets(probabilities, calibrate_threshold(probabilities, rewards, alpha=level, kind=kind).threshold, kind)
        for level in sorted((alpha, other))
    )
    assert bool((careful | ~careless).all())


@given(st.integers(0, 50))
@settings(deadline=None, max_examples=20)
def test_a_gap_of_any_size_leaves_the_most_probable_expert(seed):
    probabilities, _ = world(30, seed)
    noise = tie_noise([str(row) for row in range(30)], 4, seed)
    assert bool(augmented_sets(probabilities, 0.0, "gap", noise).any(dim=1).all())


def test_noise_breaks_ties():
    tied = torch.full((400, 4), 0.5)
    noise = tie_noise([f"query {row}" for row in range(400)], 4)
    first = augmented_sets(tied, 0.0, "gap", noise)
    assert bool((first.sum(dim=1) == 1).all())
    assert bool((first.sum(dim=0) > 40).all()), "no expert is preferred"


def test_noise_is_that_of_the_query():
    keys = ["one", "two", "\ud800", ""]
    noise = tie_noise(keys, 3, seed=7)
    assert noise.shape == (4, 4)
    assert bool(((noise >= 0) & (noise < NOISE)).all())
    assert len(noise.unique()) == 16
    assert torch.equal(tie_noise(keys[1:2], 3, seed=7)[0], noise[1])
    assert not torch.equal(tie_noise(keys, 3, seed=8), noise)
    assert tie_noise([], 3).shape == (0, 4)
    # Python's own hashes differ from process to process: these are numbers of FIPS 202.
    digest = hashlib.shake_128(b"7:one").digest(16)
    drawn = [int.from_bytes(digest[place : place + 4], "little") / 2**32 * NOISE for place in range(0, 16, 4)]
    assert noise[0].tolist() == pytest.approx(drawn)
    assert drawn[0] == pytest.approx(3.252821e-08)


def test_groups_are_calibrated_by_themselves():
    easy, hard = torch.full((40, 1), 0.9), torch.full((40, 1), 0.6)
    probabilities = torch.cat([easy, hard])
    rewards = torch.cat([torch.ones(40, 1), torch.zeros(40, 1)])
    groups = ["easy"] * 40 + ["hard"] * 40
    thresholds = calibrate_groups(probabilities, rewards, groups, alpha=0.1)
    assert thresholds["easy"].threshold == pytest.approx(0.0)
    assert thresholds["hard"].threshold == pytest.approx(0.2)  # as far as the null expert
    assert thresholds["hard"].queries == 40
    with pytest.raises(ValueError, match="'odd'.*1 calibration queries.*at least 9"):
        calibrate_groups(probabilities, rewards, [*groups[:-1], "odd"], alpha=0.1)
    with pytest.raises(ValueError, match="80 queries, got 2"):
        calibrate_groups(probabilities, rewards, ["easy", "hard"], alpha=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, "`alpha` must lie between 0 and 1, got 0.0"),
        ({"alpha": NAN}, "`alpha`"),
        ({"delta": 1.0}, "`delta` must lie between 0 and 1, got 1.0"),
        ({"kind": "ratio"}, "'gap', 'complement', 'gain'.*'ratio'"),
        ({"probabilities": torch.tensor([[NAN, 0.5]] * 4)}, "without NaN"),
        ({"probabilities": 3 * PROBABILITIES}, "not its logits"),
        ({"probabilities": PROBABILITIES[:, :1]}, r"\(4, 1\) and \(4, 2\)"),
        ({"probabilities": PROBABILITIES[0], "rewards": REWARDS[0]}, r"\(queries, experts\).*\(2,\)"),
        ({"noise": torch.zeros(4, 2)}, r"\(4, 3\).*null expert.*\(4, 2\)"),
        ({"alpha": 0.1}, "4 calibration queries.*alpha 0.1.*at least 9"),
        ({"alpha": 0.4, "delta": 0.05}, "delta 0.05.*at least 6"),
        ({"rewards": torch.full((4, 2), NAN)}, "0 calibration queries"),
    ],
)
def test_bad_input(changes, message):
    arguments = {"probabilities": PROBABILITIES, "rewards": REWARDS, "alpha": 0.4, **changes}
    with pytest.raises(ValueError, match=message):
        calibrate_threshold(**arguments)
