"""A report is kept, shown, and drawn."""

import json
import sys

import pytest
import torch

from tests.evaluation.conftest import table_of
from zooter_hf import EvaluationReport, ZooterConfig
from zooter_hf.evaluation import evaluate_probabilities
from zooter_hf.hub.card import model_card


PLOTS = ["subsets.png", "experts.png", "share.png", "reliability.png", "cost.png"]


@pytest.fixture(scope="module")
def report(small_table, small_probabilities):
    return evaluate_probabilities(
        small_probabilities, small_table, targets=torch.full((6, 3), 1 / 3), dataset="six queries", name="tiny"
    )


@pytest.fixture(scope="module")
def bare_report():
    """Without subsets and costs; rewards of any size, and an expert of whom nothing is known."""
    table = table_of([[-3.0, 12.5, None], [4.0, 2.25, None]])
    return evaluate_probabilities(torch.tensor([[0.2, 0.7, 0.1], [0.7, 0.2, 0.1]]), table)


def test_a_report_survives_json(report, bare_report, tmp_path):
    for index, each in enumerate((report, bare_report)):
        assert EvaluationReport.from_dict(json.loads(each.to_json())) == each
        each.save(tmp_path / str(index), plots=False)
        assert EvaluationReport.load(tmp_path / str(index)) == each
        assert EvaluationReport.load(tmp_path / str(index) / "evaluation.json") == each


def test_what_is_not_known_is_null(bare_report):
    assert "NaN" not in bare_report.to_json()
    unknown = bare_report.to_dict()["rows"][-1]
    assert unknown["name"] == "c"
    assert unknown["score"] is unknown["low"] is unknown["standard_error"] is unknown["mean_task_rank"] is None
    assert bare_report.mean_task_rank is bare_report.uplift is None
    assert bare_report.subsets == {}
    assert not bare_report.has_costs


def test_something_else_is_no_report(report, tmp_path):
    with pytest.raises(ValueError, match="no evaluation report: 'experts'"):
        EvaluationReport.from_dict({"queries": 3})
    with pytest.raises(ValueError, match="no evaluation report: .*'extra'"):
        EvaluationReport.from_dict({**report.to_dict(), "extra": 1})
    with pytest.raises(OSError):
        EvaluationReport.load(tmp_path)


def test_markdown_says_what_matters(report):
    text = report.to_markdown()
    for needle in (
        "six queries: 6 queries. The score is the mean reward of the chosen expert, in percent, averaged over ",
        "95 % bootstrap intervals",
        "For 2 queries the reward of the router's first choice is missing",
        "| **tiny** | **75.0** |",
        "| best single model (b) | 58.3 |",
        "| oracle | 91.7 |",
        "1.00 | 100.0 % | 1.8 |",  # MTR, uplift, dollars for a thousand queries
        "- Gain over the best single model (b): +16.7 points, ",
        "p = 1.000",
        "| regret (oracle minus router) | 16.7 |",
        "| routed expert is among the best ones | 83.3 % |",
        "| expected calibration error | 0.253 |",
        "| KL(target \\|\\| router), nats |",
        "| subset | queries | tiny | oracle | a | b | c |",
        "| r | 3 | 83.3 | 83.3 | 25.0 | 50.0 | 75.0 |",
        "| b | 33.3 % | 50.0 % |",
    ):
        assert needle in text, needle


def test_markdown_of_less(bare_report):
    text = bare_report.to_markdown()
    assert "percent" not in text
    assert "| **router** | **8.25** |" in text
    assert "| c | - | - to - |" in text
    for needle in ("subset", "KL", "mean task rank", "$"):
        assert needle not in text, needle


def test_markdown_tables_are_whole_whatever_the_names(small_probabilities):
    table = table_of([[1, 0]] * 6, ["a|b", "c"], subsets=["s|t"] * 6)
    text = evaluate_probabilities(torch.full((6, 2), 0.5), table, name="r|s").to_markdown()
    for block in text.split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1, block


def test_an_average_over_subsets_is_named(small_table, small_probabilities):
    text = evaluate_probabilities(small_probabilities, small_table, average="subsets").to_markdown()
    assert "averaged over 2 subsets, each counting the same" in text


def test_the_card_shows_the_evaluation(report, bare_report, make_router):
    evaluation = report.card_evaluation(script="zooter evaluate")
    assert evaluation["dataset"] == "six queries"
    assert evaluation["router"]["score"] == 0.75
    assert evaluation["router"]["standard_error"] > 0
    assert evaluation["best_single_model"]["expert"] == "b"
    assert evaluation["gain"]["score"] == 0.1667
    assert evaluation["subsets"]["r"] == {
        "queries": 3, "router": 0.8333, "best_single_model": 0.5, "oracle": 0.8333,
    }  # fmt: skip
    assert json.loads(json.dumps(evaluation)) == evaluation
    config = make_router(training={"name": "tiny", "evaluation": evaluation}).config
    card = str(model_card(ZooterConfig.from_dict(config.to_dict())))
    for needle in (
        "six queries: 6 queries",
        "| **this router** | **75.0** ±",
        "| best single model (b) | 58.3 ±",
        "| oracle (the best expert of each query, known beforehand) | 91.7 |",
        "Gain over the best single model: +16.7 points, 95 % interval",
        "| r | 3 | 83.3 | 50.0 |",
        "Figures made by `zooter evaluate`",
    ):
        assert needle in card, needle
    config.training = {"evaluation": bare_report.card_evaluation()}
    assert "| **this router** | **8.250**" in str(model_card(config))


def test_the_card_gets_no_gain_of_another_confidence(small_table, small_probabilities):
    report = evaluate_probabilities(small_probabilities, small_table, confidence=0.5)
    assert "gain" not in report.card_evaluation()


def test_a_subset_that_the_best_single_model_does_not_know_is_not_on_the_card():
    table = table_of([[1, 0], [1, 0], [None, 0.5]], "ab", subsets=["s", "s", "r"])
    report = evaluate_probabilities(torch.tensor([[0.6, 0.4]] * 3), table)
    assert report.row("best_single").subsets["r"] is None
    assert list(report.card_evaluation()["subsets"]) == ["s"]


def test_print(report, bare_report):
    assert str(report).startswith("tiny on six queries (6 queries, in percent): 75.0 (")
    assert str(report).endswith("best single model (b) 58.3, oracle 91.7")
    assert str(bare_report).startswith("router on reward table (2 queries): 8.25 (")
    assert report.renamed("other").router_row.name == "other"


def test_save_writes_plots(report, tmp_path):
    from PIL import Image

    files = report.save(tmp_path / "new" / "report")
    assert [path.name for path in files] == ["evaluation.json", "evaluation.md", *PLOTS]
    assert files[1].read_text() == report.to_markdown()
    for path in files[2:]:
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert len(image.convert("L").getcolors()) > 2, path.name  # more than an empty frame


def test_nothing_is_replaced_unasked(report, bare_report, tmp_path):
    report.save(tmp_path)
    with pytest.raises(FileExistsError, match=r"evaluation.json is there already.*overwrite=True"):
        report.save(tmp_path)
    (tmp_path / "evaluation.json").unlink()
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(FileExistsError, match=r"evaluation.md is there"):
        report.save(tmp_path, plots=False)
    bare_report.save(tmp_path, overwrite=True)
    assert EvaluationReport.load(tmp_path) == bare_report
    # The plots of the report that was there do not stay beside the figures of another.
    assert {path.name for path in tmp_path.iterdir()} == {
        "evaluation.json", "evaluation.md", "share.png", "reliability.png", "mine.txt",
    }  # fmt: skip
    with pytest.raises(NotADirectoryError, match="mine.txt is a file"):
        report.save(tmp_path / "mine.txt")


def test_without_matplotlib(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "zooter-hf\[evaluation\]"'):
        report.save(tmp_path / "report")
    assert not (tmp_path / "report").exists()
    assert len(report.save(tmp_path / "report", plots=False)) == 2


def test_plots_leave_pyplot_alone(report, tmp_path):
    report.save(tmp_path)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_plots_of_many_subsets_and_experts_grow(tmp_path):
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    experts = [f"expert-$^$-with-a-name-{index}" for index in range(11)]
    rewards = torch.rand(52, 11, generator=generator).tolist()
    subsets = [f"subset $_{index % 26}" for index in range(52)]
    table = table_of(rewards, experts, subsets=subsets, costs=[[0.0] + [0.1] * 10] * 52)
    report = evaluate_probabilities(torch.full((52, 11), 1 / 11), table)
    report.save(tmp_path)
    with Image.open(tmp_path / "experts.png") as image:
        assert image.width > 2000
        assert image.height > 900


def test_the_bars_are_the_scores(report):
    from zooter_hf.evaluation.plots import plot_experts, plot_share, plot_subsets

    (axes,) = plot_subsets(report).axes
    heights = [round(bar.get_height(), 1) for bar in axes.patches]
    assert heights == [83.3, 100, 83.3, 66.7, 50, 66.7]  # oracle, router, best single model, on r and s
    assert [label.get_text() for label in axes.get_xticklabels()] == ["r", "s"]
    image = plot_experts(report).axes[0].images[0].get_array()
    rows = [[round(value, 1) for value in row] for row in image.tolist()]
    assert rows == [[83.3, 66.7], [25, 66.7], [50, 66.7], [75, 33.3]]
    widths = [round(bar.get_width(), 1) for bar in plot_share(report).axes[0].patches]
    assert widths == [33.3, 33.3, 33.3, 25, 50, 25]
