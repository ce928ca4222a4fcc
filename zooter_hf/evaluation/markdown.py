"""An evaluation as Markdown."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from zooter_hf.evaluation.report import EvaluationReport


def render(report: "EvaluationReport") -> str:
    """Writes a report as Markdown: scores with intervals, comparisons, quality, subsets, shares and costs."""
    parts = [
        _introduction(report),
        _overall(report),
        _comparisons(report),
        _quality(report),
        _subsets(report),
        _shares(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def quality_line(report: "EvaluationReport") -> str:
    """Writes the router's figures of quality on one line."""
    figures = [
        f"regret {report.format(report.regret)}",
        f"top-1 agreement {100 * report.top1_agreement:.1f} %",
        f"calibration error {report.ece:.3f}",
    ]
    if report.kl is not None:
        figures.append(f"KL to the targets {report.kl:.4f}")
    if report.mean_task_rank is not None:
        figures += [f"mean task rank {report.mean_task_rank:.2f}", f"uplift {100 * report.uplift:.1f} %"]
    return ", ".join(figures)


def cost_text(cost: float | None) -> str:
    """Writes what a thousand queries cost, in US dollars."""
    return "-" if cost is None else f"{1000 * cost:.4g}"


def p_text(p_value: float) -> str:
    """Writes a p value."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _introduction(report: "EvaluationReport") -> str:
    unit = ", in percent" if report.percent else ""
    over = "the queries" if report.average == "queries" else f"{len(report.subsets)} subsets, each counting the same"
    by = "true reward" if report.true_rewards else "reward"
    text = (
        f"{report.dataset}: {report.queries:,} queries. The score is the mean {by} of the chosen expert{unit}, "
        f"averaged over {over}; intervals are {100 * report.confidence:g} % bootstrap intervals over the queries."
    )
    if report.rerouted:
        text += (
            f" For {report.rerouted:,} queries the reward of the router's first choice is missing, and its next "
            "choice with a known reward counts."
        )
    return text


def _overall(report: "EvaluationReport") -> str:
    header = ["", "score", "interval"]
    if report.subsets:
        header += ["mean task rank", "uplift"]
    if report.has_costs:
        header.append("$ / 1000 queries")
    rows = []
    for row in report.rows:
        cells = [row.name, report.format(row.score), f"{report.format(row.low)} to {report.format(row.high)}"]
        if report.subsets:
            cells.append("-" if row.mean_task_rank is None else f"{row.mean_task_rank:.2f}")
            cells.append("-" if row.uplift is None else f"{100 * row.uplift:.1f} %")
        if report.has_costs:
            cells.append(cost_text(row.cost))
        if row.kind == "router":
            cells[:2] = (f"**{escape(cell)}**" for cell in cells[:2])
        else:
            cells[0] = escape(cells[0])
        rows.append(cells)
    return table(header, rows)


def _comparisons(report: "EvaluationReport") -> str:
    points = " points" if report.percent else ""
    return "\n".join(
        f"- Gain over the {escape(each.name)}: {report.format(each.difference, signed=True)}{points}, "
        f"{report.format(each.low, signed=True)} to {report.format(each.high, signed=True)}, {p_text(each.p_value)} "
        f"(paired bootstrap and sign-flip test, {each.queries:,} queries)."
        for each in report.comparisons
    )


def _quality(report: "EvaluationReport") -> str:
    rows = [
        ["regret (oracle minus router)", report.format(report.regret)],
        ["routed expert is among the best ones", f"{100 * report.top1_agreement:.1f} %"],
        ["expected calibration error", f"{report.ece:.3f}"],
    ]
    if report.kl is not None:
        rows.append(["KL(target || router), nats".replace("|", "\\|"), f"{report.kl:.4f}"])
    return table(["quality", "value"], rows)


def _subsets(report: "EvaluationReport") -> str:
    if not report.subsets:
        return ""
    columns = [report.router_row, report.row("oracle"), *report.expert_rows]
    header = ["subset", "queries", *(escape(row.name) for row in columns)]
    rows = [
        [escape(name), f"{queries:,}", *(report.format(row.subsets[name]) for row in columns)]
        for name, queries in report.subsets.items()
    ]
    return table(header, rows)


def _shares(report: "EvaluationReport") -> str:
    rows = [
        [escape(name), f"{100 * report.routed_share[name]:.1f} %", f"{100 * report.best_share[name]:.1f} %"]
        for name in report.experts
    ]
    return table(["expert", "routed", "best"], rows)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Writes a table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def escape(name: str) -> str:
    """Keeps a name from ending its cell."""
    return name.replace("|", "\\|").replace("\n", " ")
