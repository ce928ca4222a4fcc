"""Methods compared by cost, against figures worked by hand; and how the report is kept, shown and drawn."""

import json
import sys

import numpy as np
import pytest
import torch

from tests.evaluation.conftest import table_of
from tests.evaluation.test_cost_quality import COSTS, EXPECTED, QUALITY, REWARDS
from zooter_hf.evaluation import CostQualityReport, aiq, cost_quality_curve, evaluate_costs
from zooter_hf.evaluation.cost_report import ExpertPoint


nan = torch.nan
NAMES = ["a", "b", "c"]
PLOTS = ["cost_quality.png", "strong_share.png"]


def evaluate(methods=None, rewards=REWARDS, costs=COSTS, expected=EXPECTED, names=NAMES, **settings):
    return evaluate_costs(
        {"router": QUALITY} if methods is None else methods, rewards, costs, expected, names,
        **{"samples": 50, **settings},
    )  # fmt: skip


@pytest.fixture(scope="module")
def many():
    """Many queries with scores that know something of the rewards."""
    generator = torch.Generator().manual_seed(0)
    chances = torch.rand(400, 3, generator=generator, dtype=torch.float64) * torch.tensor([0.6, 0.8, 1.0])
    rewards = torch.rand(400, 3, generator=generator, dtype=torch.float64).lt(chances).double()
    costs = torch.tensor([0.001, 0.003, 0.01]) * (0.5 + torch.rand(400, 3, generator=generator, dtype=torch.float64))
    return {"quality": chances, "rewards": rewards, "costs": costs, "expected": torch.tensor([0.001, 0.003, 0.01])}


@pytest.fixture(scope="module")
def report(many):
    methods = {"router": many["quality"], "no|opinion": torch.zeros(400, 3)}
    return evaluate(
        methods, many["rewards"], many["costs"], many["expected"], ["small", "medium$", "large"],
        strong="large", weak="small", dataset="coins",
    )  # fmt: skip


@pytest.fixture(scope="module")
def bare_report():
    """Rewards of any size, a free expert, one of which nothing is known, and no pair."""
    rewards = torch.tensor([[-3.0, 12.5, nan], [4.0, 2.25, nan]])
    costs = torch.tensor([[0.0, 1.0, nan], [0.0, 1.0, 2.0]])
    return evaluate({"router": rewards}, rewards, costs)


def test_by_hand():
    """The curve goes through (1.5, 1); the single models are a (1, 0.5), b (2.5, 0.5) and c (4.5, 1)."""
    report = evaluate(strong="c", weak="a")
    assert report.experts == (
        ExpertPoint("a", 1, 0.5, True), ExpertPoint("b", 2.5, 0.5, False), ExpertPoint("c", 4.5, 1, True),
    )  # fmt: skip
    assert report.best_single == "c"
    assert [expert.name for expert in report.hull] == ["a", "c"]
    assert report.cost_range == (1, 4.5)
    assert report.mixture_aiq.value == pytest.approx(0.75)
    method = report.method("router")
    assert method.costs == (4.5, 2.5, 1.5, 1)
    assert method.rewards == (1, 1, 1, 0.5)
    assert method.shares == {"a": (0, 0.5, 0.5, 1), "b": (0, 0, 0.5, 0), "c": (1, 0.5, 0, 0)}
    assert method.aiq.value == pytest.approx((0.5 * 0.75 + 3 * 1) / 3.5)
    assert method.aiq_gain.value == pytest.approx((0.5 * 0.75 + 3 * 1) / 3.5 - 0.75)
    assert [each.quality for each in method.qualities] == [1, 0.95]
    assert method.quality(1.0).cost.value == pytest.approx(1.5 / 4.5)
    whole, half = method.budgets
    assert (whole.budget, whole.reward.value, whole.gain.value) == (1, 1, 0)
    assert (half.budget, half.reward.value, half.gain.value) == (0.5, 1, 0)
    assert half.gain_over_mixture.value == pytest.approx(1 - (0.5 + 0.5 * 1.25 / 3.5))
    # The first query gains by c and is called first: 0.6 against 0.1.
    assert method.strong_weak.shares == (0, 0.5, 1)
    assert method.strong_weak.rewards == (0.5, 1, 1)
    assert method.strong_weak.apgr.value == pytest.approx(0.75)
    assert method.strong_weak.cpt["0.8"].value == pytest.approx(0.4)
    # The oracle answers both queries with b and a, which cost 2 and 1.
    assert report.oracle.costs[0] == 1.5
    assert report.oracle.quality(1.0).cost.value == pytest.approx(1.5 / 4.5)


def test_the_range_is_the_same_for_all_and_can_be_given():
    report = evaluate({"router": QUALITY, "quality": QUALITY.flip(1)}, cost_range=(2, 4))
    assert report.cost_range == (2, 4)
    assert report.mixture_aiq.value == pytest.approx(0.5 + 0.5 * 2 / 3.5)
    assert report.method("router").aiq.value == 1


def test_a_quality_that_is_never_reached():
    report = evaluate({"always a": torch.tensor([[1.0, nan, nan]] * 2)}, budgets=(0.1, 1.0))
    method = report.methods[0]
    assert method.quality(1.0).cost.value is None
    assert method.quality(1.0).cost.high is None
    assert method.budget(0.1).reward.value is None  # it costs more than that
    assert method.budget(1.0).reward.value == 0.5
    assert method.budget(0.5) is None
    assert "not reached" in report.to_markdown()


def test_less_quality_by_hand():
    """Half of the quality of c is that of a; of a negative reward nine tenths lie a tenth below it."""
    method = evaluate(qualities=(0.5,)).methods[0]
    assert method.quality(0.5).cost.value == pytest.approx(1 / 4.5)
    assert method.quality(1.0) is None
    rewards = torch.tensor([[-10.0, -9.0, -8.0]])
    report = evaluate({"truth": rewards}, rewards, torch.tensor([[1.0, 2.0, 4.0]]), qualities=(1.0, 0.85, 0.5))
    assert [each.cost.value for each in report.methods[0].qualities] == [1, 0.5, 0.25]


def test_queries_of_which_nothing_is_known_are_left_out():
    def more(values, row):
        return torch.cat([values, torch.tensor([row])])

    expected = EXPECTED.expand(2, 3)
    report = evaluate(
        {"router": more(QUALITY, [0.9, 0.1, 0.2])},
        more(REWARDS, [1.0, nan, nan]),
        more(COSTS, [nan, 2.0, 4.0]),
        more(expected, [1.0, 1.0, 1.0]),
    )
    assert report == evaluate()


def test_intervals_are_those_of_drawing_queries_anew(many):
    """Against a bootstrap that does everything again for every draw."""
    quality, rewards, costs, expected = many.values()
    report = evaluate({"router": quality}, rewards, costs, expected, samples=1000, strong="c", weak="a")
    rng = np.random.default_rng(1)
    aiqs, gains, shares = [], [], []
    for _ in range(400):
        drawn = torch.from_numpy(rng.integers(len(rewards), size=len(rewards)))
        curve = cost_quality_curve(quality[drawn], expected, rewards[drawn], costs[drawn])
        single = costs[drawn].mean(dim=0), rewards[drawn].mean(dim=0)
        aiqs.append(aiq(curve.costs, curve.rewards, report.cost_range))
        gains.append(aiqs[-1] - aiq(*single, report.cost_range))
        enough = curve.costs[curve.rewards >= single[1][2] - 1e-9]
        shares.append((enough.min() / single[0][2]).item() if len(enough) else np.inf)
    method = report.methods[0]
    for values, estimate, tolerance in (
        (aiqs, method.aiq, 0.01), (gains, method.aiq_gain, 0.006), (shares, method.quality(1.0).cost, 0.05),
    ):  # fmt: skip
        low, high = np.quantile(values, [0.025, 0.975])
        assert estimate.low < estimate.value < estimate.high
        assert estimate.low == pytest.approx(low, abs=tolerance)
        assert estimate.high == pytest.approx(high, abs=tolerance)


def test_a_router_that_knows_something_beats_the_mixture(report):
    router, nothing = report.methods
    assert router.aiq_gain.low > 0
    assert router.strong_weak.apgr.low > 0.5
    # Without an opinion the cheapest expert takes every query, and calls of the strong one are random.
    assert nothing.costs == (report.expert("small").cost,)
    assert nothing.strong_weak.apgr.value == nothing.strong_weak.apgr.low == 0.5
    assert report.oracle.aiq.value > router.aiq.value > nothing.aiq.value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"costs": None}, "There are no costs"),
        ({"costs": COSTS - 1.5}, "`costs` must be US dollars, 0 or more: that of 'a' for query 0 is -0.5"),
        ({"expected": torch.tensor([1.0, nan, 4.0])}, "known for every expert: that of 'b' for query 0 is nan"),
        ({"expected": torch.tensor([1.0, 2.0, -4.0])}, "that of 'c' for query 0 is -4.0"),
        ({"expected": EXPECTED[:2]}, r"\(queries, experts\) = \(2, 3\) or \(experts,\) = \(3,\), got \(2,\)"),
        ({"costs": COSTS[:1]}, r"same shape \(queries, experts\), got \(2, 3\) and \(1, 3\)"),
        ({"rewards": REWARDS[0], "costs": COSTS[0]}, r"same shape \(queries, experts\), got \(3,\)"),
        ({"names": ["a", "b"]}, "3 experts must have one name each"),
        ({"names": ["a", "b", "a"]}, "3 experts must have one name each"),
        ({"methods": {}}, "There is no method"),
        ({"methods": {"mine": QUALITY[:, :2]}}, "scores of 'mine' must have the shape"),
        ({"methods": {"mine": QUALITY / 0}}, "scores of 'mine' are infinite"),
        ({"methods": {"mine": torch.tensor([[1.0, 1, 1], [nan, nan, nan]])}}, "'mine' leave no expert to query 1"),
        ({"rewards": REWARDS * nan}, "no query on which the reward and the cost"),
        ({"strong": "c"}, "`weak` must be one of the experts"),
        ({"strong": "gpt", "weak": "a"}, "`strong` must be one of the experts .* got 'gpt'"),
        ({"strong": "a", "weak": "c"}, "strong model must be better"),
        ({"strong": "c", "weak": "c"}, "strong model must be better"),
        ({"budgets": (0,)}, "`budgets` are positive shares of the best single model's cost"),
        ({"qualities": (-1,)}, "`qualities` are positive shares of the best single model's reward"),
        ({"points": 1}, "`points`"),
        ({"samples": 0}, "`samples`"),
        ({"confidence": 1}, "`confidence`"),
        ({"cost_range": (2, 1)}, "lowest and a highest cost"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate(**changes)


def test_a_table_without_costs():
    table = table_of([[1, 0], [0, 1]], "ab")
    with pytest.raises(ValueError, match="column `costs`"):
        evaluate({"router": table.rewards}, table.rewards, table.costs, torch.ones(2), table.expert_names)


def test_a_report_survives_json(report, bare_report, tmp_path):
    for index, each in enumerate((report, bare_report)):
        assert CostQualityReport.from_dict(json.loads(each.to_json())) == each
        each.save(tmp_path / str(index), plots=False)
        assert CostQualityReport.load(tmp_path / str(index)) == each
    assert "NaN" not in bare_report.to_json()
    assert bare_report.expert("c") == ExpertPoint("c", None, None, False)
    with pytest.raises(ValueError, match="no report of costs and quality: 'experts'"):
        CostQualityReport.from_dict({"queries": 3})
    with pytest.raises(OSError):
        CostQualityReport.load(tmp_path)


def test_markdown_says_what_matters():
    text = evaluate(strong="c", weak="a", dataset="two queries").to_markdown()
    for needle in (
        "two queries: 2 queries. Quality is the mean reward of the chosen expert, in percent",
        "from 1000 to 4500 dollars for 1000 queries",
        "The best single model, c, has 100.00 at 4500 dollars",
        "| router | 96.43 | +21.43, ",
        " | 33.3 % (",
        "| mixture of experts | 75.00 | - | - | - | - | - |",
        "| c over a | APGR | CPT(50 %) | CPT(80 %) |",
        "| random | 0.500 | 50.0 % | 80.0 % |",
        "| router | 0.750 (",
        "| a | 1000 | 50.00 | yes |",
        "| b | 2500 | 50.00 |  |",
    ):
        assert needle in text, needle


def test_markdown_tables_are_whole(report, bare_report):
    for each in (report, bare_report):
        for block in each.to_markdown().split("\n\n"):
            lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
            assert len({line.count("|") for line in lines}) <= 1, block
    text = bare_report.to_markdown()
    assert "percent" not in text
    assert "APGR" not in text
    assert "| c | - | - |  |" in text


def test_print(report):
    assert str(report).startswith("AIQ on coins (400 queries, in percent): router ")


def test_save_writes_plots(report, bare_report, tmp_path):
    from PIL import Image

    files = report.save(tmp_path / "new" / "report")
    assert [path.name for path in files] == ["cost_quality.json", "cost_quality.md", *PLOTS]
    for path in files[2:]:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert len(image.convert("L").getcolors()) > 2, path.name
    with pytest.raises(FileExistsError, match=r"cost_quality.json is there already.*overwrite=True"):
        report.save(tmp_path / "new" / "report")
    bare_report.save(tmp_path / "new" / "report", overwrite=True)
    # The plot of the pair does not stay beside a report without one.
    assert {path.name for path in (tmp_path / "new" / "report").iterdir()} == {
        "cost_quality.json", "cost_quality.md", "cost_quality.png",
    }  # fmt: skip


def test_the_lines_are_the_curves(report):
    from zooter_hf.evaluation.cost_plots import plot_cost_quality, plot_strong_share

    (axes,) = plot_cost_quality(report).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["oracle", "router", "no|opinion", "mixture of experts (Zero router)"]
    drawn = lines["router"].get_xydata()
    router = report.method("router")
    assert drawn[0] == pytest.approx([1000 * router.costs[0], 100 * router.rewards[0]])
    assert drawn[-1] == pytest.approx([1000 * router.costs[-1], 100 * router.rewards[-1]])
    assert axes.get_xscale() == "log"
    labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert labels[-3:] == ["1  small", r"2  medium\$", "3  large (best)"]
    (axes,) = plot_strong_share(report).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["random calls"].get_xdata() == pytest.approx([0, 100])
    assert lines["router"].get_ydata()[-1] == pytest.approx(100 * report.expert("large").reward)


def test_without_matplotlib(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "zooter-hf\[evaluation\]"'):
        report.save(tmp_path / "report")
    assert not (tmp_path / "report").exists()
    assert len(report.save(tmp_path / "report", plots=False)) == 2
