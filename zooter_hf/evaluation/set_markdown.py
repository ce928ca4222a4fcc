"""An evaluation of sets of experts as Markdown."""

from typing import TYPE_CHECKING

from zooter_hf.evaluation.markdown import escape, table


if TYPE_CHECKING:
    from zooter_hf.evaluation.set_report import SetReport, SetRow, Spread


def render(report: "SetReport") -> str:
    """Writes a report as Markdown: what was promised, what was kept, votes, and subsets."""
    parts = [_introduction(report), _promise(report), _votes(report), _subsets(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(report: "SetReport") -> str:
    good = "correct" if report.margin is None else f"within {report.margin:g} of the best reward"
    promise = (
        "on average over calibrations"
        if report.delta is None
        else f"in all but a share of {report.delta:g} of the calibrations"
    )
    return (
        f"{report.dataset}: {report.queries:,} queries and {report.experts} experts. Good is what is {good}; for "
        f"{_percent(report.unanswerable)} % of the queries no expert is. Sets by {report.kind}, promised {promise}. "
        f"Means over {report.repeats} splits, with {_percent(report.calibration_share)} % of the queries for "
        "calibration; shares are in percent."
    )


def _promise(report: "SetReport") -> str:
    header = ["sets of", "alpha", "risk", "missed", "calls", "abstained", "rightly"]
    if report.subsets:
        header.insert(3, "worst subset")
    rows = []
    for row in sorted(report.rows, key=lambda row: row.alpha):
        cells = [
            _name(report, row),
            f"{row.alpha:g}",
            _spread(row.risk, 100, 1),
            _percent(row.missed.mean),
            _spread(row.size, 1, 2),
            _percent(row.abstained.mean),
            _percent(row.abstained_rightly.mean),
        ]
        if report.subsets:
            cells.insert(3, _percent(row.worst_risk))
        rows.append(cells)
    return table(header, rows)


def _votes(report: "SetReport") -> str:
    header = ["sets of", "alpha", "calls", "first alone", "vote", "as many best", "as many at random"]
    rows = []
    for row in sorted(report.rows, key=lambda row: row.alpha):
        if row.top1.mean is None:
            continue
        answered = 1 - row.abstained.mean
        votes = [
            _percent(low.mean) if report.answers else f"{_percent(low.mean)} to {_percent(high.mean)}"
            for low, high in (
                (row.voted_low, row.voted_high),
                (row.ranked_low, row.ranked_high),
                (row.random_low, row.random_high),
            )
        ]
        calls = f"{row.size.mean / answered:.2f}"
        rows.append([_name(report, row), f"{row.alpha:g}", calls, _percent(row.top1.mean), *votes])
    weights = "equal votes" if report.sharpness == 0 else f"votes by the probability to the power {report.sharpness:g}"
    about = f"Right answers on the queries that are answered, {weights}."
    if not report.answers:
        about += (
            " The answers' texts are not known: from the case that all wrong answers are the same to the case that no "
            "two of them are."
        )
    return f"{about}\n\n{table(header, rows)}"


def _subsets(report: "SetReport") -> str:
    if not report.subsets:
        return ""
    rows_of = [row for row in report.rows if row.source == report.router]
    rows_of.sort(key=lambda row: row.alpha)
    header = ["subset", "queries", *(f"{row.alpha:g}, {_calibrated(row)}" for row in rows_of)]
    rows = [
        [
            escape(subset),
            f"{queries:,}",
            *(
                f"{_percent(each.risk.mean)} ({each.size.mean:.2f})"
                for row in rows_of
                for each in [row.subsets[subset]]
            ),
        ]
        for subset, queries in report.subsets.items()
    ]
    return f"Risk (and calls) of {escape(report.router)}'s sets by subset.\n\n{table(header, rows)}"


def _name(report: "SetReport", row: "SetRow") -> str:
    name = f"**{escape(row.source)}**" if row.source == report.router else escape(row.source)
    return f"{name}, {_calibrated(row)}" if report.has_groups else name


def _calibrated(row: "SetRow") -> str:
    return "by group" if row.grouped else "all together"


def _spread(spread: "Spread", factor: int, digits: int) -> str:
    if spread.mean is None:
        return "-"
    text = f"{factor * spread.mean:.{digits}f}"
    return text if spread.deviation is None else f"{text} ± {factor * spread.deviation:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
