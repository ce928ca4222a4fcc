"""Costs and quality as Markdown."""

from typing import TYPE_CHECKING

from zooter_hf.evaluation.markdown import cost_text, escape, table


if TYPE_CHECKING:
    from zooter_hf.evaluation.cost_report import CostQualityReport, Estimate, MethodCosts


def render(report: "CostQualityReport") -> str:
    """Writes a report as Markdown: the methods, the pair of a strong and a weak model, and the single models."""
    parts = [_introduction(report), _methods(report), _pair(report), _experts(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(report: "CostQualityReport") -> str:
    unit = ", in percent" if report.percent else ""
    low, high = (cost_text(cost) for cost in report.cost_range)
    single = report.expert(report.best_single)
    return (
        f"{report.dataset}: {report.queries:,} queries. Quality is the mean reward of the chosen expert{unit}; costs "
        "are means of true costs, and the weight of expected costs runs from 0, quality alone, to the cheapest. "
        f"AIQ is the mean height of a method's non-decreasing convex hull from {low} to {high} dollars for 1000 "
        "queries (RouterBench, arXiv 2403.12031). The mixture of experts on their own hull reads no query "
        f"(RouterBench's Zero router). The best single model, {escape(single.name)}, has "
        f"{report.format(single.reward)} at {cost_text(single.cost)} dollars; shares of quality and of "
        f"cost are of these. Intervals are {100 * report.confidence:g} % bootstrap intervals over the queries."
    )


def _methods(report: "CostQualityReport") -> str:
    header = [
        "",
        "AIQ",
        "gain over the mixture",
        *(f"cost of {100 * each.quality:g} % of the quality" for each in report.oracle.qualities),
        *(f"quality at {100 * each.budget:g} % of the cost (gain over the mixture)" for each in report.oracle.budgets),
    ]
    rows = [_method(report, method) for method in report.methods]
    mixture = [report.format(report.mixture_aiq.value), *["-"] * (len(header) - 2)]
    rows.append(["mixture of experts", *mixture])
    rows.append(_method(report, report.oracle))
    return table(header, rows)


def _method(report: "CostQualityReport", method: "MethodCosts") -> list[str]:
    return [
        escape(method.name),
        report.format(method.aiq.value),
        _interval(report, method.aiq_gain),
        *(share_text(each.cost) for each in method.qualities),
        *(
            f"{report.format(each.reward.value)} ({_interval(report, each.gain_over_mixture)})"
            for each in method.budgets
        ),
    ]


def _pair(report: "CostQualityReport") -> str:
    if report.strong is None:
        return ""
    first = report.methods[0].strong_weak
    header = [
        f"{escape(report.strong)} over {escape(report.weak)}",
        "APGR",
        *(f"CPT({100 * float(recovered):g} %)" for recovered in first.cpt),
    ]
    rows = [["random", "0.500", *(f"{100 * float(recovered):.1f} %" for recovered in first.cpt)]]
    for method in (*report.methods, report.oracle):
        pair = method.strong_weak
        cells = [f"{pair.apgr.value:.3f} ({pair.apgr.low:.3f} to {pair.apgr.high:.3f})"]
        rows.append([escape(method.name), *cells, *(share_text(each) for each in pair.cpt.values())])
    return (
        "Between two models, queries go to the strong one by the difference of their scores: APGR is the mean part of "
        "the gap between the two that is recovered over all shares of strong calls, CPT the share of such calls that "
        "recovers a part (RouteLLM, arXiv 2406.18665).\n\n" + table(header, rows)
    )


def _experts(report: "CostQualityReport") -> str:
    experts = sorted(report.experts, key=lambda expert: float("inf") if expert.cost is None else expert.cost)
    rows = [
        [escape(each.name), cost_text(each.cost), report.format(each.reward), "yes" if each.on_hull else ""]
        for each in experts
    ]
    return table(["expert", "$ / 1000 queries", "quality", "on the hull"], rows)


def share_text(share: "Estimate") -> str:
    """Writes a share of a cost or of calls with its interval."""
    if share.value is None:
        return "not reached"
    high = "not reached" if share.high is None else f"{100 * share.high:.1f}"
    low = "not reached" if share.low is None else f"{100 * share.low:.1f}"
    return f"{100 * share.value:.1f} % ({low} to {high})"


def _interval(report: "CostQualityReport", estimate: "Estimate") -> str:
    if estimate.value is None:
        return "-"
    low, high = (report.format(end, signed=True) for end in (estimate.low, estimate.high))
    return f"{report.format(estimate.value, signed=True)}, {low} to {high}"
