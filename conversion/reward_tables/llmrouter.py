"""Score tables of LLMRouter (ulab-uiuc): `train.jsonl` beside `llms.json`."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zooter_hf.modeling import ExpertSpec


def experts(source: str | Path) -> list[ExpertSpec]:
    """Reads the experts, with their list prices in US dollars per million tokens.

    Raises:
        OSError: If the folder has no `llms.json`.
    """
    path = _file(source, "llms.json")
    return [
        ExpertSpec(
            name=name,
            model=entry.get("model"),
            backend="endpoint",
            input_price=entry.get("input_price"),
            output_price=entry.get("output_price"),
            metadata={"size": entry["size"]} if "size" in entry else {},
        )
        for name, entry in json.loads(path.read_text(encoding="utf-8")).items()
    ]


def read(source: str | Path) -> Iterator[dict[str, Any]]:
    """Reads the rows; the benchmark task of a query is its tag and its subset.

    Raises:
        OSError: If the folder has no `train.jsonl`.
        ValueError: If a row is malformed; names its line.
    """
    path = _file(source, "train.jsonl")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                rewards = {name: _number(score) for name, score in row["scores"].items()}
                yield {"query": row["question"], "rewards": rewards, "tags": [row["task"]], "subset": row["task"]}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"Line {number} of {path} is no row of an LLMRouter table: {error!r}.") from error


def _number(score: Any) -> float | None:
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"a score must be a finite number or null, got {score!r}")
    return float(score)


def _file(source: str | Path, name: str) -> Path:
    path = Path(source, name)
    if not path.is_file():
        raise OSError(f"{source} has no {name}. Give the folder that holds an LLMRouter table.")
    return path
