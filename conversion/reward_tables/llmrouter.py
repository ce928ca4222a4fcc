"""Score tables of LLMRouter (ulab-uiuc): JSON lines of question, scores and task, perhaps beside `llms.json`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zooter_hf.conversion.reward_tables.files import explain, find_files, number, place
from zooter_hf.modeling import ExpertSpec


FORMAT = "an LLMRouter table"
_EXPECTED = f"a row of {FORMAT} has `question`, `scores` (a number an LLM) and `task`"


def experts(source: str | Path) -> list[ExpertSpec]:
    """Reads the experts, with their list prices in US dollars per million tokens.

    Returns:
        What `llms.json` beside the table says; of experts that it does not know, or without it, their names alone.

    Raises:
        OSError: If there is no table.
        ValueError: If `llms.json` is malformed.
    """
    files = find_files(source, ".jsonl", FORMAT)
    path = files[0].parent / "llms.json"
    known = {}
    if path.is_file():
        try:
            known = {
                name: ExpertSpec(
                    name=name,
                    model=entry.get("model"),
                    backend="endpoint",
                    input_price=entry.get("input_price"),
                    output_price=entry.get("output_price"),
                    metadata={"size": entry["size"]} if "size" in entry else {},
                )
                for name, entry in json.loads(path.read_text(encoding="utf-8")).items()
            }
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{path} does not describe the LLMs of {FORMAT}: {error}") from error
    scored = next((list(row["rewards"]) for _, row in read(source) if not isinstance(row, Exception)), list(known))
    return [known.get(name) or ExpertSpec(name) for name in sorted(scored, key=_place_in(known))]


def read(source: str | Path) -> Iterator[tuple[str, dict[str, Any] | Exception]]:
    """Reads the rows; the benchmark task of a query is its tag and its subset.

    Raises:
        OSError: If there is no `*.jsonl` file.
    """
    for path in find_files(source, ".jsonl", FORMAT):
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for count, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    yield f"{place(path, source)}, line {count}", _row(line)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    yield f"{place(path, source)}, line {count}", explain(error, _EXPECTED)


def _row(line: str) -> dict[str, Any]:
    row = json.loads(line)
    rewards = {name: number(score) for name, score in row["scores"].items()}
    task = row["task"]
    return {"query": row["question"], "rewards": rewards, "tags": [task], "subset": task}


def _place_in(known: dict[str, Any]):
    order = {name: index for index, name in enumerate(known)}
    return lambda name: order.get(name, len(order))
