"""Results of LLMRouterBench (also OpenRouterBench): JSON files of records, one a data set, split and model."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.utils import logging

from zooter_hf.conversion.reward_tables.files import explain, find_files, number, place
from zooter_hf.conversion.reward_tables.merging import Merger
from zooter_hf.modeling import ExpertSpec


logger = logging.get_logger(__name__)

FORMAT = "LLMRouterBench results"
_EXPECTED = "a record has `index`, `prompt`, `score` (a number or null) and perhaps `cost` and `raw_output`"
_RUN = ("dataset_name", "split", "model_name")
_TIME = re.compile(r"(\d{8})_(\d{6})\.json$")


def experts(source: str | Path) -> list[ExpertSpec]:
    """Reads the experts: the files say no more than their names, which the rows carry.

    Raises:
        OSError: If there is no file.
    """
    find_files(source, ".json", FORMAT)
    return []


def read(source: str | Path, query: str = "prompt") -> Iterator[tuple[str, dict[str, Any] | Exception]]:
    """Reads the rows, with costs in US dollars; the data set of a query is its tag and subset.

    Of several results of a model on one data set and split the newest counts, by the time in its name; trial runs
    (`demo`) do not count. A record without a score is an answer that failed or was not judged: it has neither reward
    nor cost.

    Args:
        source: The folder `results/bench`, or a part of it.
        query: What the router shall read: `"prompt"`, as the models did, or `"origin_query"`, without instructions.

    Raises:
        OSError: If there is no `*.json` file.
        ValueError: If a file is not of this format, or `query` is neither of the two.
    """
    if query not in ("prompt", "origin_query"):
        raise ValueError(f'`query` must be "prompt" or "origin_query", got {query!r}.')
    merger = Merger()
    for path, content in _newest(source):
        data_set, split, model = (content[name] for name in _RUN)
        for count, record in enumerate(content["records"], start=1):
            where = f"{place(path, source)}, record {count}"
            try:
                row = {"query": record[query], "tags": [data_set], "subset": data_set}
                score = number(record["score"])
                values = {"rewards": score, "responses": _text(record.get("raw_output"))}
                if "cost" in record:
                    values["costs"] = None if score is None else number(record["cost"])
                merger.add(where, (data_set, split, record["index"]), model, row, **values)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                yield where, explain(error, _EXPECTED)
    yield from merger


def _newest(source: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields the files that count, by name, and what is in them."""
    newest: dict[tuple[str, ...], tuple[str, Path, dict[str, Any]]] = {}
    for path in find_files(source, ".json", FORMAT):
        content = _open(path)
        if content.get("demo"):
            continue
        key = tuple(content[name] for name in _RUN)
        found = _TIME.search(path.name)
        time = "".join(found.groups()) if found else ""
        if key in newest:
            if time == newest[key][0]:
                raise ValueError(
                    f"{path} and {newest[key][1]} are results of one run, and neither is newer by its name."
                )
            logger.info(f"{' / '.join(key)}: there are several results, and the newest counts.")
        if key not in newest or time > newest[key][0]:
            newest[key] = (time, path, content)
    for _, path, content in sorted(newest.values(), key=lambda found: found[1]):
        yield path, content


def _open(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Give the folder that holds {FORMAT} alone.") from error
    if (
        not isinstance(content, dict)
        or not all(isinstance(content.get(name), str) for name in _RUN)
        or not isinstance(content.get("records"), list)
    ):
        raise ValueError(f"{path} is no result of LLMRouterBench: it needs {', '.join(_RUN)} and a list `records`.")
    return content


def _text(output: Any) -> str | None:
    return output if output is None or isinstance(output, str) else json.dumps(output, ensure_ascii=False)
