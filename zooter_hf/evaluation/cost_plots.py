"""Plots of costs and quality."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np

from zooter_hf.evaluation.plots import (
    ORACLE_COLOUR,
    ROUTER_COLOUR,
    SINGLE_COLOUR,
    new_figure,
    plain,
)


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from zooter_hf.evaluation.cost_report import CostQualityReport, ExpertPoint


MIXTURE_COLOUR = "#555b61"
MIXTURE_STYLE = {"color": MIXTURE_COLOUR, "linestyle": (0, (4, 2))}
# The first method is the router's; the others are told apart from it, from the oracle and from each other.
METHOD_COLOURS = (ROUTER_COLOUR, "#c0392b", "#3c9d5d", "#8e5ea2", "#17a2b8", "#d6558b", "#7f6a3f")
METHOD_LINES = ("-", "--", "-.", ":")


def plot_cost_quality(report: "CostQualityReport") -> "Figure":
    """Draws quality against cost: every method's curve, the mixture of experts, the oracle, and the single models."""
    figure, axes = new_figure(10.0, 5.8)
    known = [expert for expert in report.experts if expert.cost is not None]
    logarithmic = all(expert.cost > 0 for expert in known)
    _draw(report, axes, report.oracle.costs, report.oracle.rewards, color=ORACLE_COLOUR, label="oracle")
    for index, method in enumerate(report.methods):
        _draw(report, axes, method.costs, method.rewards, **_style(index), label=plain(method.name), zorder=4)
    _draw(report, axes, *_mixture(report), **MIXTURE_STYLE, label="mixture of experts (Zero router)", zorder=3)
    for number, expert in enumerate(sorted(known, key=lambda expert: expert.cost), start=1):
        _draw_expert(report, axes, expert, number)
    if logarithmic:
        axes.set_xscale("log")  # prices of models differ by orders of magnitude
        _plain_ticks(axes)
    axes.margins(x=0.12, y=0.08)
    axes.set(xlabel="US dollars for 1000 queries", ylabel=_quality_label(report), title=plain(report.dataset))
    axes.grid(alpha=0.25, linewidth=0.6)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def plot_strong_share(report: "CostQualityReport") -> Optional["Figure"]:
    """Draws quality against the share of strong calls; `None` where no pair is compared."""
    if report.strong is None:
        return None
    figure, axes = new_figure(8.4, 5.0)
    ends = [report.methods[0].strong_weak.rewards[place] for place in (0, -1)]
    _draw_share(report, axes, report.oracle.strong_weak, color=ORACLE_COLOUR, label="oracle")
    for index, method in enumerate(report.methods):
        _draw_share(report, axes, method.strong_weak, **_style(index), label=plain(method.name))
    axes.plot([0, 100], _scaled(report, ends), **MIXTURE_STYLE, label="random calls")
    for role, name, place, end, marker in (
        ("weak", report.weak, 0, ends[0], "o"),
        ("strong", report.strong, 100, ends[1], "s"),
    ):
        label = f"{role}: {plain(name)}"
        axes.scatter(
            place,
            _scaled(report, [end])[0],
            color=MIXTURE_COLOUR,
            marker=marker,
            s=55,
            label=label,
            zorder=5,
            clip_on=False,
        )
    axes.set(
        xlim=(0, 100),
        xlabel=f"calls of {plain(report.strong)}, percent",
        ylabel=_quality_label(report),
        title=plain(report.dataset),
    )
    axes.margins(y=0.1)
    axes.grid(alpha=0.25, linewidth=0.6)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


COST_PLOTS: dict[str, Callable[["CostQualityReport"], Optional["Figure"]]] = {
    "cost_quality.png": plot_cost_quality,
    "strong_share.png": plot_strong_share,
}


def _draw(report: "CostQualityReport", axes: "Axes", costs: Sequence[float], rewards: Sequence[float], **style):
    """Draws points and what mixing two neighbours gives, which on a logarithmic scale is no straight line."""
    between = np.linspace(0, len(costs) - 1, 16 * (len(costs) - 1) + 1)
    costs, rewards = (np.interp(between, range(len(values)), values) for values in (costs, rewards))
    axes.plot(1000 * costs, _scaled(report, rewards), **{"linewidth": 1.8, **style})


def _mixture(report: "CostQualityReport") -> tuple[list[float], list[float]]:
    """The corners of the experts' hull, and its last reward up to the dearest expert."""
    costs, rewards = [expert.cost for expert in report.hull], [expert.reward for expert in report.hull]
    dearest = max(expert.cost for expert in report.experts if expert.cost is not None)
    return [*costs, dearest], [*rewards, rewards[-1]]


def _draw_share(report: "CostQualityReport", axes: "Axes", result, **style):
    axes.plot([100 * share for share in result.shares], _scaled(report, result.rewards), **{"linewidth": 1.8, **style})


def _draw_expert(report: "CostQualityReport", axes: "Axes", expert: "ExpertPoint", number: int):
    """Draws a numbered point: names beside the points would lie over each other."""
    best = expert.name == report.best_single
    place = 1000 * expert.cost, _scaled(report, [expert.reward])[0]
    axes.scatter(
        *place,
        s=130,
        color=MIXTURE_COLOUR if expert.on_hull else SINGLE_COLOUR,
        edgecolor="black" if best else "white",
        linewidth=1.5 if best else 0.8,
        label=f"{number}  {plain(expert.name)}{' (best)' if best else ''}",
        zorder=5,
    )
    axes.text(*place, str(number), ha="center", va="center_baseline", fontsize=7, color="white", zorder=6)


def _plain_ticks(axes: "Axes"):
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _style(index: int) -> dict[str, str]:
    return {
        "color": METHOD_COLOURS[index % len(METHOD_COLOURS)],
        "linestyle": METHOD_LINES[index // len(METHOD_COLOURS) % len(METHOD_LINES)],
    }


def _scaled(report: "CostQualityReport", values) -> list[float]:
    return [100 * value if report.percent else value for value in values]


def _quality_label(report: "CostQualityReport") -> str:
    return "mean reward, percent" if report.percent else "mean reward"
