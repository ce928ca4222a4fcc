"""A plot of sets of experts: whether their promise is kept, and how many calls that takes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zooter_hf.evaluation.plots import (
    ORACLE_COLOUR,
    ROUTER_COLOUR,
    SINGLE_COLOUR,
    plain,
)


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from zooter_hf.evaluation.set_report import SetReport, SetRow


OTHER_COLOURS = (ORACLE_COLOUR, "#6a9a5b", "#a05a8c", "#7a7a7a")


def plot_sets(report: "SetReport") -> "Figure":
    """Draws risk and calls against alpha, of the router and of what it is compared with."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    risk, calls = figure.subplots(1, 2)
    top = 1.15 * max(report.alphas)
    risk.plot([0, top], [0, top], color="grey", linestyle="--", linewidth=1, label="what is promised")
    for grouped in (False, True) if report.has_groups else (False,):
        rows = _rows(report, report.router, grouped)
        style = {"color": ROUTER_COLOUR, "linestyle": "-" if grouped or not report.has_groups else ":"}
        how = (", by group" if grouped else ", all together") if report.has_groups else ""
        _line(risk, rows, [row.risk.mean for row in rows], f"all queries{how}", marker="o", **style)
        if report.subsets:
            worst = [row.worst_risk for row in rows]
            _line(risk, rows, worst, f"worst subset{how}", marker="v", **style, alpha=0.6)
    others = [source for source in report.sources if source != report.router]
    colours = [ROUTER_COLOUR, *(OTHER_COLOURS[place % len(OTHER_COLOURS)] for place in range(len(others) - 1))]
    for source, colour in zip([report.router, *others], [*colours, SINGLE_COLOUR], strict=True):
        for grouped in (False, True) if report.has_groups else (False,):
            rows = _rows(report, source, grouped)
            label = plain(source) + (", by group" if grouped else "")
            sizes = [row.size.mean for row in rows]
            linestyle = "-" if grouped or not report.has_groups else ":"
            _line(calls, rows, sizes, label, marker="o", color=colour, linestyle=linestyle)
    risk.set(xlim=(0, top), ylim=(0, None), xlabel="alpha", ylabel="share of the sets without a good expert")
    highest = max((row.size.mean for row in report.rows), default=1.0)
    calls.set(xlim=(0, top), ylim=(0, 1.1 * highest), xlabel="alpha", ylabel="experts in a set")
    risk.legend(loc="upper left", frameon=False, fontsize=8)
    # Lines fall to the right, and more of them than the legend leaves room for.
    calls.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    risk.set_title(f"risk of {plain(report.router)}'s sets", fontsize=10)
    calls.set_title("calls", fontsize=10)
    return figure


SET_PLOTS = {"sets.png": plot_sets}


def _rows(report: "SetReport", source: str, grouped: bool) -> "list[SetRow]":
    rows = [row for row in report.rows if row.source == source and row.grouped == grouped]
    return sorted(rows, key=lambda row: row.alpha)


def _line(axes: "Axes", rows: "Sequence[SetRow]", values: Sequence[float | None], label: str, **style):
    values = [float("nan") if value is None else value for value in values]
    axes.plot([row.alpha for row in rows], values, label=label, markersize=4, linewidth=1.3, **style)
