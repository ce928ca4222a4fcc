"""MixInstruct of LLM-Blender (arXiv 2306.02561): JSON lines of an instruction and the scored answers of LLMs to it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zooter_hf.conversion.reward_tables.files import explain, find_files, number, place
from zooter_hf.modeling import ExpertSpec


FORMAT = "a MixInstruct table"
_EXPECTED = f"a row of {FORMAT} has `instruction`, `input` and `candidates`, each with `model`, `text` and `scores`"


def experts(source: str | Path) -> list[ExpertSpec]:
    """Reads the experts: the table says no more than their names, which the rows carry.

    Raises:
        OSError: If there is no table.
    """
    find_files(source, ".jsonl", FORMAT)
    return []


def read(source: str | Path, metric: str = "bartscore") -> Iterator[tuple[str, dict[str, Any] | Exception]]:
    """Reads the rows; the source of a query, which stands before the slash of its id, is its tag and subset.

    Metrics are on scales of their own, and are passed on as they are: BARTScore is a mean log-likelihood, about -5 to
    -1, so standardise the rewards when you train on them.

    Args:
        source: A file, or a folder of them.
        metric: Which of the scores is the reward: `"bartscore"`, `"bertscore"`, `"bleurt"`, `"rougeL"`, ...

    Raises:
        OSError: If there is no `*.jsonl` file.
    """
    for path in find_files(source, ".jsonl", FORMAT):
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for count, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                where = f"{place(path, source)}, line {count}"
                try:
                    yield where, _row(json.loads(line), metric)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    yield where, explain(error, _EXPECTED)


def _row(row: dict[str, Any], metric: str) -> dict[str, Any]:
    rewards, responses = {}, {}
    for candidate in row["candidates"]:
        name, scores = candidate["model"], candidate["scores"]
        if name in rewards:
            raise ValueError(f"it has two answers of {name!r}")
        if metric not in scores:
            raise ValueError(f"an answer has no score {metric!r}, but {list(scores)}")
        rewards[name] = number(scores[metric])
        responses[name] = candidate["text"]
    subset = row["id"].rpartition("/")[0] if isinstance(row.get("id"), str) else ""
    return {
        "query": "\n".join(part for part in (row["instruction"], row["input"]) if part),
        "rewards": rewards,
        "responses": responses,
        "tags": [subset] if subset else [],
        "subset": subset or None,
    }
