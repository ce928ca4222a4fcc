import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zooter_hf.evaluation import SetReport, evaluate_sets
from zooter_hf.evaluation.set_report import SetRow
from zooter_hf.evaluation.set_votes import make_ballots, spread_calls
from zooter_hf.evaluation.sets import THRESHOLD
from zooter_hf.routing.voting import vote


NAN = float("nan")
KINDS = ("gap", "complement", "gain")


def world(queries=1200, experts=4, seed=0):
    """The router sees a blurred version of every expert's chance, of hard queries next to nothing."""
    generator = torch.Generator().manual_seed(seed)
    hard = torch.arange(queries) % 2 == 0
    chances = torch.rand(queries, experts, generator=generator, dtype=torch.float64)
    rewards = (torch.rand(queries, experts, generator=generator) < chances).double()
    blur = torch.where(hard, 0.7, 0.1).unsqueeze(1)
    seen = (chances + blur * torch.randn(queries, experts, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return seen, rewards, ["hard" if each else "easy" for each in hard]


@pytest.fixture(scope="module")
def report():
    probabilities, rewards, subsets = world()
    noise = torch.rand(probabilities.shape, generator=torch.Generator().manual_seed(9))
    return evaluate_sets(
        probabilities, rewards, alphas=(0.1, 0.2), kind="gain", subsets=subsets, groups=subsets,
        others={"chance": noise}, repeats=40, name="router", dataset="world",
    )  # fmt: skip


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_votes_are_those_of_the_voting_rules(data):
    experts = data.draw(st.integers(1, 5))
    probabilities = data.draw(
        st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.9]), min_size=experts, max_size=experts)
    )
    good = data.draw(st.lists(st.booleans(), min_size=experts, max_size=experts))
    inside = data.draw(st.lists(st.booleans(), min_size=experts, max_size=experts))
    sharpness = data.draw(st.sampled_from([0.0, 1.0, 3.0]))
    answers = None
    if data.draw(st.booleans()):
        answers = [
            "right" if right else data.draw(st.sampled_from([None, "", "wrong", "false", "The wrong"]))
            for right in good
        ]
    ballots = make_ballots(
        torch.tensor([probabilities], dtype=torch.float64),
        torch.tensor([good]),
        None if answers is None else [answers],
        sharpness,
    )
    counted = [bool(each) for each in torch.stack(ballots.count(torch.tensor([inside]), torch.tensor([0])))]

    ranked = [place for place in sorted(range(experts), key=lambda place: -probabilities[place]) if inside[place]]
    for case, result in zip(("wrong", "wrong by {}"), counted, strict=True):
        said = answers or ["right" if right else case.format(place) for place, right in enumerate(good)]
        weights = [max(probabilities[place], 1e-9) ** sharpness for place in ranked]
        winner = vote([said[place] for place in ranked], weights).winner
        assert result == (winner is not None and good[ranked[winner]])
    assert counted[0] <= counted[1]


def count(probabilities, good, answers=None, sharpness=1.0):
    """Holds the vote of all experts."""
    probabilities = torch.tensor([probabilities], dtype=torch.float64)
    ballots = make_ballots(probabilities, torch.tensor([good]), None if answers is None else [answers], sharpness)
    return tuple(
        bool(each) for each in ballots.count(torch.ones_like(probabilities, dtype=torch.bool), torch.tensor([0]))
    )


def test_votes_by_hand():
    assert count([0.3, 0.2, 0.1], [True, False, False]) == (True, True), "0.2 + 0.1 is a tie with 0.3"
    assert count([0.3, 0.2, 0.2], [True, False, False]) == (False, True)
    assert count([0.3, 0.2, 0.2], [False, True, True]) == (True, True)
    assert count([0.9, 0.2, 0.2], [False, True, True], sharpness=0.0) == (True, True)
    assert count([0.9, 0.5], [False, True], [None, "A"]) == (True, True), "no answer, no vote"
    assert count([0.9, 0.3, 0.2], [False, True, False], [None, "A", "B"]) == (True, True)
    assert count([0.5, 0.4, 0.4], [True, False, False], ["A", "B", "the B"]) == (False, False)
    assert count([0.5, 0.4], [False, False], [None, None]) == (False, False)


def test_calls_are_spread_as_evenly_as_can_be():
    calls = spread_calls(2.25, 10_000, torch.Generator().manual_seed(0))
    assert set(calls.tolist()) == {2, 3}
    assert calls.double().mean().item() == pytest.approx(2.25, abs=0.02)
    assert set(spread_calls(3.0, 100, torch.Generator()).tolist()) == {3}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delta", [None, 0.1])
def test_the_promise_is_kept(kind, delta):
    probabilities, rewards, _ = world(seed=3)
    found = evaluate_sets(probabilities, rewards, alphas=(0.1,), kind=kind, delta=delta, repeats=60)
    risk = found.row("router", 0.1).risk
    if delta is None:  # the mean over splits of the same queries hardly differs from the promise
        assert 0.09 <= risk.mean <= 0.108
    else:
        assert 0.05 <= risk.mean <= 0.09
        assert risk.mean + 1.28 * risk.deviation <= 0.115  # nine of ten


def test_sets_are_tried_on_other_queries():
    """The largest of nine is exceeded by one in ten of others, and by none of the nine."""
    probabilities, rewards, _ = world(18, seed=2)
    found = evaluate_sets(probabilities, rewards, alphas=(0.1,), kind="complement", margin=0.0, repeats=400)
    assert found.row("router", 0.1).risk.mean == pytest.approx(0.1, abs=0.02)
    assert found.row(THRESHOLD, 0.1).risk.mean == pytest.approx(0.1, abs=0.02)


def test_groups_keep_the_promise_where_all_together_do_not(report):
    together, by_group = report.row("router", 0.1), report.row("router", 0.1, grouped=True)
    assert together.subsets["hard"].risk.mean > 0.13
    assert together.subsets["easy"].risk.mean < 0.07
    assert together.worst_risk == together.subsets["hard"].risk.mean
    for subset in by_group.subsets.values():
        assert 0.085 <= subset.risk.mean <= 0.108
    assert by_group.subsets["hard"].size.mean > by_group.subsets["easy"].size.mean


def test_better_scores_take_fewer_calls(report):
    for grouped in (False, True):
        sizes = [report.row(source, 0.1, grouped).size.mean for source in ("router", "chance")]
        assert sizes[0] < sizes[1]
        assert report.row("chance", 0.1, grouped).risk.mean == pytest.approx(0.1, abs=0.01), "at the same risk"
    assert report.row("router", 0.2).size.mean < report.row("router", 0.1).size.mean


def test_the_plain_threshold_misses_as_often(report):
    row = report.row(THRESHOLD, 0.1)
    assert row.missed.mean == row.risk.mean == pytest.approx(0.1, abs=0.01)
    assert report.row("router", 0.1).missed.mean == report.row("router", 0.1).risk.mean


def test_figures_by_hand():
    """All queries alike but for who is right: the first expert of six in eight, nobody of the others."""
    probabilities = torch.tensor([[0.8, 0.4, 0.1]] * 80)
    rewards = torch.tensor([[1.0, 0.0, 1.0]] * 60 + [[0.0, 0.0, 0.2]] * 20)
    found = evaluate_sets(probabilities, rewards, alphas=(0.5, 0.05), kind="gap", repeats=200, sharpness=0.0)
    assert found.unanswerable == 0.25
    one = found.row("router", 0.5)  # the gap of the first expert is 0
    assert one.size.mean == 1.0
    assert one.risk.mean == pytest.approx(0.25, abs=0.01)
    assert (one.missed.mean, one.abstained.mean, one.abstained_rightly.mean) == (0.0, 0.0, None)
    assert one.voted_low.mean == one.voted_high.mean == one.top1.mean == pytest.approx(0.75, abs=0.01)
    two = found.row("router", 0.05)  # down to the null expert, at 1 - 0.8: the second comes with it
    assert two.size.mean == 2.0
    assert two.risk.mean == pytest.approx(0.05, abs=0.015), "noise leaves the null expert out as often as it may"
    assert two.voted_low.mean == two.voted_high.mean == pytest.approx(0.75, abs=0.01), "a tie goes to the first"
    # Of the first and second the first wins, of first and third both are right; of second and third the second wins.
    assert two.random_low.mean == two.random_high.mean == pytest.approx(0.5, abs=0.02)


def test_abstentions_are_judged_by_whether_anybody_could_answer():
    probabilities = torch.tensor([[0.9, 0.8]] * 60 + [[0.1, 0.05]] * 60)
    rewards = torch.tensor([[1.0, 0.0]] * 60 + [[0.0, 0.0]] * 45 + [[1.0, 1.0]] * 15)
    found = evaluate_sets(probabilities, rewards, alphas=(0.25,), kind="gap", repeats=50)
    row = found.row("router", 0.25)
    assert row.abstained.mean == pytest.approx(0.5, abs=0.02)
    assert row.abstained_rightly.mean == pytest.approx(0.75, abs=0.03)
    assert row.missed.mean == row.risk.mean == pytest.approx(0.125, abs=0.02)
    assert row.top1.mean == 1.0, "of the queries that are answered"


def test_a_vote_of_real_answers_lies_within_its_bounds():
    probabilities, rewards, _ = world(seed=5)
    answers = [["A" if reward else "BCD"[(row + place) % 3] for place, reward in enumerate(of_query)]
               for row, of_query in enumerate(rewards.tolist())]  # fmt: skip
    settings = {"alphas": (0.05,), "kind": "gain", "repeats": 10, "sharpness": 1.0}
    bounds = evaluate_sets(probabilities, rewards, **settings)
    real = evaluate_sets(probabilities, rewards, **settings, answers=answers)
    low, high = bounds.row("router", 0.05).voted_low.mean, bounds.row("router", 0.05).voted_high.mean
    row = real.row("router", 0.05)
    assert low < row.voted_low.mean == row.voted_high.mean < high
    assert row.risk == bounds.row("router", 0.05).risk
    assert "not known" in bounds.to_markdown()
    assert "not known" not in real.to_markdown()


def test_queries_without_rewards_are_left_out():
    probabilities, rewards, subsets = world(200)
    known = evaluate_sets(probabilities, rewards, alphas=(0.1,), subsets=subsets, groups=subsets, repeats=3)
    more = evaluate_sets(
        torch.cat([probabilities, torch.rand(50, 4)]),
        torch.cat([rewards, torch.full((50, 4), NAN)]),
        alphas=(0.1,), subsets=[*subsets, *["easy"] * 50], groups=[*subsets, *["none"] * 50], repeats=3,
    )  # fmt: skip
    assert more == known


def test_splits_are_those_of_the_seed():
    probabilities, rewards, _ = world(200)
    first, again, other = (
        evaluate_sets(probabilities, rewards, alphas=(0.1,), repeats=3, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.rows != other.rows


def test_a_report_is_kept_and_shown(report, tmp_path):
    files = report.save(tmp_path / "report")
    assert [file.name for file in files] == ["sets.json", "sets.md", "sets.png"]
    assert files[2].read_bytes().startswith(b"\x89PNG")
    assert SetReport.load(tmp_path / "report") == report
    assert json.loads(files[0].read_text())["rows"][0]["risk"]["mean"] == report.rows[0].risk.mean
    with pytest.raises(FileExistsError, match="overwrite=True"):
        report.save(tmp_path / "report")
    report.save(tmp_path / "report", overwrite=True, plots=False)
    assert not files[2].exists(), "no plot of an earlier report"
    with pytest.raises(ValueError, match="no report of sets"):
        SetReport.from_dict({"rows": []})
    markdown = report.to_markdown()
    row = report.row("router", 0.1, grouped=True)
    assert f"| **router**, by group | 0.1 | {100 * row.risk.mean:.1f} ± " in markdown
    assert f"| hard | 600 | {100 * report.row('router', 0.1).subsets['hard'].risk.mean:.1f} (" in markdown
    assert all(f"| {source}, all together | 0.2 |" in markdown for source in ("chance", THRESHOLD))
    assert f"risk {report.row('router', 0.1).risk.mean:.3f}" in str(report)
    assert set(SetRow.FIGURES) <= set(report.to_dict()["rows"][0])


def test_the_plot_shows_the_figures(report):
    from zooter_hf.evaluation.set_plots import plot_sets

    risk, calls = plot_sets(report).axes
    lines = {line.get_label(): line.get_ydata() for line in risk.lines}
    assert list(lines["what is promised"]) == [0, pytest.approx(0.23)]
    assert list(lines["all queries, by group"]) == [
        report.row("router", alpha, True).risk.mean for alpha in (0.1, 0.2)
    ]
    assert list(lines["worst subset, all together"]) == [
        report.row("router", alpha).worst_risk for alpha in (0.1, 0.2)
    ]
    sizes = {line.get_label(): list(line.get_ydata()) for line in calls.lines}
    assert sizes["chance"] == [report.row("chance", alpha).size.mean for alpha in (0.1, 0.2)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": torch.zeros(40, 3)}, r"`probabilities` must have the shape.*\(40, 3\).*\(40, 2\)"),
        ({"others": {"knn": torch.zeros(3, 2)}}, r"others\['knn'\].*\(3, 2\)"),
        ({"others": {THRESHOLD: torch.zeros(40, 2)}}, "another name"),
        ({"others": {"router": torch.zeros(40, 2)}}, "another name"),
        ({"rewards": torch.zeros(40), "probabilities": torch.zeros(40)}, r"\(queries, experts\)"),
        ({"subsets": ["a"]}, "`subsets` must be as many as the 40 queries, got 1"),
        ({"subsets": ["a"] * 39 + [None]}, "1 have none"),
        ({"alphas": (0.01,)}, "Of 40 queries 20.*alpha 0.01.*at least 99"),
        ({"alphas": (0.1,), "groups": ["a"] * 30 + ["b"] * 10}, "10 queries of group 'b' 5.*at least 9"),
        ({"alphas": (0.1,), "delta": 0.05}, "at least 29"),
        ({"alphas": (1.5,)}, "`alpha`.*1.5"),
        ({"alphas": ()}, "`alphas`"),
        ({"kind": "other"}, "`kind`"),
        ({"repeats": 0}, "`repeats`"),
        ({"calibration_share": 1.0}, "`calibration_share`"),
        ({"sharpness": -1.0}, "`sharpness`"),
        ({"probabilities": torch.full((40, 2), NAN)}, "NaN"),
    ],
)
def test_bad_input(changes, message):
    arguments = {"probabilities": torch.rand(40, 2), "rewards": torch.ones(40, 2), "alphas": (0.2,), **changes}
    with pytest.raises(ValueError, match=message):
        evaluate_sets(arguments.pop("probabilities"), arguments.pop("rewards"), **arguments)


def test_one_split_has_no_deviation():
    probabilities, rewards, _ = world(100)
    row = evaluate_sets(probabilities, rewards, alphas=(0.2,), repeats=1).row("router", 0.2)
    assert row.risk.deviation is None
    assert math.isfinite(row.risk.mean)
