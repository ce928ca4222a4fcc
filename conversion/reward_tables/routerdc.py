"""Score tables of RouterDC (arXiv 2409.19886): JSON lists of question, scores and cluster, a file a benchmark."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.utils import logging

from zooter_hf.conversion.reward_tables.files import explain, find_files, number, place, read_list
from zooter_hf.modeling import ExpertSpec


logger = logging.get_logger(__name__)

FORMAT = "a RouterDC table"
_EXPECTED = f"a row of {FORMAT} has `question` and `scores` (a number a model)"
_SPLIT = re.compile(r"[-_](train|test|dev|val|validation)$", re.IGNORECASE)


def experts(source: str | Path) -> list[ExpertSpec]:
    """Reads the experts, which are named by their Hub ids.

    Raises:
        OSError: If there is no table.
    """
    for _, row in read(source):
        if not isinstance(row, Exception):
            return [ExpertSpec(name, model=name if name.count("/") == 1 else None) for name in row["rewards"]]
    return []


def read(source: str | Path, clusters: bool = False) -> Iterator[tuple[str, dict[str, Any] | Exception]]:
    """Reads the rows; the benchmark, which is the name of the file, is the tag and the subset of a query.

    What a score says differs from file to file (section 5.1 of the paper): shares of ten sampled answers that are
    right, or the probability of the chosen answer, and 0 if that is wrong. Shares count as they are; of probabilities,
    which say how sure a model was, it counts whether they are more than 0. Shares are told by being multiples of 0.1.

    Args:
        source: A file, or a folder of them.
        clusters: Whether the cluster of a query within its benchmark is a tag too.

    Raises:
        OSError: If there is no `*.json` file.
        ValueError: If a file is not JSON, or not a list.
    """
    for path in find_files(source, ".json", FORMAT):
        name = place(path, source)
        rows = read_list(path, FORMAT)
        shares = _are_shares(rows)
        logger.info(f"{name}: a score counts {'as it is' if shares else '1 if it is more than 0'}.")
        subset = _SPLIT.sub("", path.stem)
        for count, row in enumerate(rows, start=1):
            try:
                yield f"{name}, row {count}", _row(row, subset, shares, clusters)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                yield f"{name}, row {count}", explain(error, _EXPECTED)


def _row(row: Any, subset: str, shares: bool, clusters: bool) -> dict[str, Any]:
    scores = {name: number(score) for name, score in row["scores"].items()}
    if not shares:
        scores = {name: None if score is None else float(score > 0) for name, score in scores.items()}
    tags = [subset]
    if clusters and row.get("cluster_id") is not None:
        tags.append(f"{subset}/cluster-{row['cluster_id']}")
    return {"query": row["question"], "rewards": scores, "tags": tags, "subset": subset}


def _are_shares(rows: list[Any]) -> bool:
    """Tells shares of ten attempts from probabilities; a row that is malformed has no say."""
    scores = [
        score
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("scores"), dict)
        for score in row["scores"].values()
        if isinstance(score, int | float) and not isinstance(score, bool)
    ]
    return all(abs(10 * score - round(10 * score)) < 1e-6 for score in scores)
