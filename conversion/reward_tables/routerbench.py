"""Score tables of RouterBench (arXiv 2403.12031): CSV files with a score and a price a model."""

import ast
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zooter_hf.conversion.reward_tables.files import explain, find_files, number, place
from zooter_hf.modeling import ExpertSpec


FORMAT = "a RouterBench table"
_EXPECTED = f"a row of {FORMAT} has a prompt and a number or nothing for every model"
_COST, _RESPONSE = "|total_cost", "|model_response"


def experts(source: str | Path) -> list[ExpertSpec]:
    """Reads the experts: every column that has a price beside it, in the order of the first file.

    Raises:
        OSError: If there is no table.
        ValueError: If a file has no such columns.
    """
    path = find_files(source, ".csv", FORMAT)[0]
    with path.open(encoding="utf-8", newline="") as file:
        return [ExpertSpec(name) for name in _models(path, csv.DictReader(file).fieldnames)]


def read(source: str | Path) -> Iterator[tuple[str, dict[str, Any] | Exception]]:
    """Reads the rows, with costs in US dollars; the name of the benchmark is the tag and the subset of a query.

    Raises:
        OSError: If there is no `*.csv` file.
        ValueError: If a file has not the columns of the format.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a prompt may be longer than the module expects
    for path in find_files(source, ".csv", FORMAT):
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            models = _models(path, rows.fieldnames)
            for row in rows:
                where = f"{place(path, source)}, line {rows.line_num}"
                try:
                    yield where, _row(row, models)
                except (ValueError, KeyError, TypeError) as error:
                    yield where, explain(error, _EXPECTED)


def _models(path: Path, columns: Any) -> list[str]:
    columns = columns or []
    models = [name for name in columns if f"{name}{_COST}" in columns]
    if not models or "prompt" not in columns:
        raise ValueError(
            f"{path} is not {FORMAT}: it needs the column `prompt`, and for every model `<model>` (score) and "
            f"`<model>{_COST}`; it has {columns}."
        )
    return models


def _row(row: dict[str, str], models: list[str]) -> dict[str, Any]:
    if None in row or None in row.values():
        raise ValueError("it has more or fewer cells than the header")
    benchmark = row.get("eval_name") or None
    result = {
        "query": _prompt(row["prompt"]),
        "rewards": {name: number(row[name]) for name in models},
        "costs": {name: number(row[f"{name}{_COST}"]) for name in models},
        "tags": [benchmark] if benchmark else [],
        "subset": benchmark,
    }
    if any(f"{name}{_RESPONSE}" in row for name in models):
        result["responses"] = {name: row.get(f"{name}{_RESPONSE}") or None for name in models}
    return result


def _prompt(cell: str) -> str:
    """Reads a prompt, which stands in the files as a Python list of strings, mostly of one."""
    if not cell.startswith("["):
        return cell
    try:
        parts = ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return cell  # a question that begins with a bracket
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return cell
    return "\n\n".join(parts)
