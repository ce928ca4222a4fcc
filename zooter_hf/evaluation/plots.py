"""Plots of an evaluation. Figures are made without pyplot, so that nothing global changes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from zooter_hf.evaluation.metrics import ReliabilityBin, expected_calibration_error


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from zooter_hf.evaluation.report import EvaluationReport


DOTS_PER_INCH = 150
ROUTER_COLOUR, SINGLE_COLOUR, ORACLE_COLOUR = "#1b6ca8", "#b0b7bf", "#e0a030"


def require_matplotlib():
    """Raises `ImportError`, with the remedy, if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'Plots need matplotlib: pip install "zooter-hf[evaluation]". Without them: `plots=False` (--no-plots).'
        ) from error


def save_plots(report: Any, folder: "str | Path", plots: "Mapping[str, Callable] | None" = None) -> list[Path]:
    """Draws the plots that a report has the figures for, as PNG files.

    Args:
        report: The report.
        folder: Where to; it must be there. Plots that are there are replaced.
        plots: How to draw each, by the names of the files; those of an [`EvaluationReport`] by default.

    Returns:
        The files.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    require_matplotlib()
    files = []
    for name, plot in (PLOTS if plots is None else plots).items():
        figure = plot(report)
        if figure is not None:
            path = Path(folder, name)
            figure.savefig(path, dpi=DOTS_PER_INCH)
            files.append(path)
    return files


def plot_subsets(report: "EvaluationReport") -> Optional["Figure"]:
    """Draws the router, the best single model and the oracle on every subset; `None` without subsets."""
    if not report.subsets:
        return None
    names = list(report.subsets)
    rows = [
        (report.row("oracle"), ORACLE_COLOUR),
        (report.router_row, ROUTER_COLOUR),
        (report.row("best_single"), SINGLE_COLOUR),
    ]
    figure, axes = new_figure(max(6.4, 2 + 0.55 * len(names)), 4.8)
    width = 0.8 / len(rows)
    for index, (row, colour) in enumerate(rows):
        places = [place + (index - 1) * width for place in range(len(names))]
        axes.bar(
            places, _scaled(report, [row.subsets[name] for name in names]), width, color=colour, label=plain(row.name)
        )
    _label_subsets(axes, names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel(_score_label(report))
    figure.legend(loc="outside upper center", ncols=len(rows), frameon=False)
    return figure


def plot_experts(report: "EvaluationReport") -> Optional["Figure"]:
    """Draws the scores of the router and of every expert on every subset; `None` without subsets."""
    if not report.subsets:
        return None
    rows = [report.router_row, *report.expert_rows]
    names = list(report.subsets)
    values = [_scaled(report, [row.subsets[name] for name in names]) for row in rows]
    figure, axes = new_figure(max(6.4, 3 + 0.55 * len(names)), max(3.2, 2 + 0.38 * len(rows)))
    image = axes.imshow(values, aspect="auto", cmap="viridis")
    low, high = image.get_clim()
    for y, of_row in enumerate(values):
        for x, value in enumerate(of_row):
            if value == value:
                dark = value < (low + high) / 2
                text = f"{value:.0f}" if report.percent else f"{value:.2g}"
                axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    _label_subsets(axes, names)
    axes.set_yticks(range(len(rows)), [plain(row.name) for row in rows])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.axhline(0.5, color="white", linewidth=2)
    figure.colorbar(image, ax=axes, label=_score_label(report))
    return figure


def plot_share(report: "EvaluationReport") -> "Figure":
    """Draws how often every expert is routed, and how often it is best."""
    names = report.experts
    figure, axes = new_figure(6.4, max(2.6, 1.4 + 0.45 * len(names)))
    for offset, shares, label, colour in (
        (-0.2, report.routed_share, "routed", ROUTER_COLOUR),
        (0.2, report.best_share, "best (ties divided)", ORACLE_COLOUR),
    ):
        places = [place + offset for place in range(len(names))]
        axes.barh(places, [100 * shares[name] for name in names], 0.4, color=colour, label=label)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("queries, percent")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def plot_reliability(report: "EvaluationReport") -> "Figure":
    """Draws the router's confidence against how often it is right, and how many queries there are of each."""
    filled = [each for each in report.reliability if each.queries]
    figure, axes = new_figure(5.2, 4.8)
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="calibrated")
    axes.bar(
        [each.low for each in report.reliability],
        [each.queries / report.queries for each in report.reliability],
        [each.high - each.low for each in report.reliability],
        align="edge",
        color=SINGLE_COLOUR,
        alpha=0.6,
        label="share of the queries",
    )
    axes.plot(
        [each.confidence for each in filled],
        [each.accuracy for each in filled],
        color=ROUTER_COLOUR,
        marker="o",
        label="router",
    )
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="probability of the routed expert",
        ylabel="it is the best expert",
        title=f"expected calibration error {report.ece:.3f}",
    )
    axes.legend(loc="upper left", frameon=False)
    return figure


def save_calibration_plot(
    before: Sequence[ReliabilityBin], after: Sequence[ReliabilityBin], path: "str | Path"
) -> Path:
    """Draws confidence against how often it is right, before and after a calibration, as a PNG file.

    Args:
        before: The reliability before; see [`~zooter_hf.evaluation.metrics.reliability`].
        after: That after it.
        path: The file; replaced if it is there.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    require_matplotlib()
    figure, axes = new_figure(5.2, 4.8)
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="calibrated")
    for bins, colour, label in ((before, SINGLE_COLOUR, "before"), (after, ROUTER_COLOUR, "after")):
        filled = [each for each in bins if each.queries]
        axes.plot([each.confidence for each in filled], [each.accuracy for each in filled], color=colour, zorder=2)
        sizes = [8 + 400 * each.queries / sum(one.queries for one in filled) for each in filled]
        axes.scatter(
            [each.confidence for each in filled],
            [each.accuracy for each in filled],
            s=sizes,
            color=colour,
            label=f"{label}, error {expected_calibration_error(bins):.3f}",
            zorder=3,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the routed expert", ylabel="it is the best expert")
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return Path(path)


def plot_cost(report: "EvaluationReport") -> Optional["Figure"]:
    """Draws score against cost of the router, the experts, and the oracle; `None` where costs are not known."""
    if not report.has_costs:
        return None
    from matplotlib import colormaps

    figure, axes = new_figure(8.0, max(4.8, 1 + 0.25 * len(report.rows)))
    colours = colormaps["tab20"].colors
    points = [(row, colours[index % len(colours)], "o") for index, row in enumerate(report.expert_rows)]
    points.sort(key=lambda point: point[0].cost or 0.0)
    points = [(report.router_row, ROUTER_COLOUR, "*"), (report.row("oracle"), ORACLE_COLOUR, "D"), *points]
    points = [point for point in points if point[0].cost is not None and point[0].score is not None]
    for row, colour, marker in points:
        size = 220 if marker == "*" else 50
        # Names beside the points would lie over each other: experts of one price are often about equally good.
        axes.scatter(
            1000 * row.cost,
            _scaled(report, [row.score]),
            color=[colour],
            marker=marker,
            s=size,
            edgecolor="black",
            linewidth=0.5,
            label=plain(row.name),
            zorder=3 if marker == "*" else 2,
        )
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    if all(row.cost > 0 for row, _, _ in points):
        axes.set_xscale("log")  # prices of models differ by orders of magnitude
    axes.margins(x=0.15, y=0.1)
    axes.set(xlabel="US dollars for 1000 queries", ylabel=_score_label(report))
    return figure


PLOTS: dict[str, Callable[["EvaluationReport"], Optional["Figure"]]] = {
    "subsets.png": plot_subsets,
    "experts.png": plot_experts,
    "share.png": plot_share,
    "reliability.png": plot_reliability,
    "cost.png": plot_cost,
}


def new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """Makes a figure of a width and height in inches, without pyplot, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _label_subsets(axes: "Axes", names: list[str]):
    labels = [plain(name) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor")


def _scaled(report: "EvaluationReport", values: list[float | None]) -> list[float]:
    """Scores as they are drawn; what is not known is NaN, which leaves a gap."""
    factor = 100 if report.percent else 1
    return [float("nan") if value is None else factor * value for value in values]


def _score_label(report: "EvaluationReport") -> str:
    return "mean reward, percent" if report.percent else "mean reward"


def plain(name: str) -> str:
    """Writes a name so that matplotlib shows it as it is."""
    return name.replace("$", r"\$")  # which would begin a formula
