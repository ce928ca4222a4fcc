"""Reads query sets: JSON lines, Parquet, CSV, plain text, saved datasets, datasets on the Hub."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from zooter_hf.rewards.query_sets.items import QueryItem
from zooter_hf.rewards.rows import RowProblem, list_problems
from zooter_hf.rewards.storage import JSON_LINES, find_files, open_dataset, read_json_lines, saved_dataset


# What people call these columns; the first that is there counts.
QUERY_COLUMNS = ("query", "messages", "conversation", "prompt", "question", "instruction", "text")
REFERENCE_COLUMNS = ("reference", "answer", "gold", "target")
TAG_COLUMNS = ("tags",)
SUBSET_COLUMNS = ("subset", "task", "dataset")


def load_queries(
    source: str | Path,
    *,
    query_column: str | None = None,
    reference_column: str | None = None,
    tag_column: str | None = None,
    subset_column: str | None = None,
    split: str = "train",
    revision: str | None = None,
    token: str | bool | None = None,
) -> list[QueryItem]:
    """Reads a query set.

    Args:
        source: A file of JSON lines (strings, lists of messages, or objects), Parquet or text (a query a line); a
            folder of such data files or one that `Dataset.save_to_disk` wrote, a reward table among them; or the id
            of a dataset on the Hub.
        query_column: The column of the queries, strings or chat messages. By default the first that is there of
            `query`, `messages`, `conversation`, `prompt`, `question`, `instruction` and `text`.
        reference_column: The column of the right answers. By default `reference`, `answer`, `gold` or `target`, if
            there is one.
        tag_column: The column of the tags, a string or a list of strings. By default `tags`, if there is one.
        subset_column: The column of the subsets. By default `subset`, `task` or `dataset`, if there is one.
        split: Which split, where there are several.
        revision: Branch, tag or commit of a dataset on the Hub.
        token: The token for the Hub, if it is not the one that you are logged in with.

    Raises:
        OSError: If there is no such file, folder or dataset.
        ValueError: If a column is not there, or rows are malformed; names the first ones.
    """
    columns = {"query": query_column, "reference": reference_column, "tags": tag_column, "subset": subset_column}
    items, problems = [], []
    for where, row in _rows(source, split, revision, token):
        try:
            if isinstance(row, Exception):
                raise row
            items.append(_item(row, columns))
        except (ValueError, TypeError) as error:
            problems.append(RowProblem(where, str(error)))
    if problems:
        raise ValueError(f"{len(problems)} queries of {source} are malformed:\n{list_problems(problems)}")
    if not items:
        raise ValueError(f"{source} holds no query.")
    return items


def _rows(source: str | Path, split: str, revision: str | None, token) -> Iterator[tuple[str, Any]]:
    path = Path(source).expanduser()
    if not path.exists():
        yield from _numbered(_from_hub(str(source), split, revision, token))
        return
    dataset = saved_dataset(path, split) if path.is_dir() else None
    if dataset is not None:
        yield from _numbered(dataset)
        return
    files = find_files(path, split) if path.is_dir() else [path]
    suffix = files[0].suffix.lower()
    if suffix in JSON_LINES:
        yield from read_json_lines(files)
    elif suffix == ".parquet":
        import tempfile

        with tempfile.TemporaryDirectory() as directory:
            yield from _numbered(open_dataset(files, Path(directory)))
    elif suffix in (".txt", ""):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
        yield from ((f"line {number}", line.strip()) for number, line in enumerate(lines, 1) if line.strip())
    else:
        raise ValueError(
            f"{path} is of a kind that is not read. Give JSON lines (.jsonl), Parquet (.parquet) or text (.txt)."
        )


def _from_hub(source: str, split: str, revision: str | None, token) -> Iterable[Any]:
    if source.count("/") > 1 or source.startswith((".", "/", "~")) or Path(source).suffix:
        raise OSError(f"There is no file or folder {source}. Give one that is there, or a dataset's id: owner/name.")
    from datasets import load_dataset

    return load_dataset(source, split=split, revision=revision, token=token)


def _numbered(rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _item(row: Any, columns: Mapping[str, str | None]) -> QueryItem:
    if not isinstance(row, Mapping):
        return QueryItem(row)
    query = _column(row, columns["query"], QUERY_COLUMNS)
    if query is None:
        raise ValueError(f"it has no query; the columns are {sorted(row)}. Name that of the queries: `query_column`")
    reference = _column(row, columns["reference"], REFERENCE_COLUMNS)
    tags = _column(row, columns["tags"], TAG_COLUMNS)
    return QueryItem(
        query=query,
        reference=None if reference is None else str(reference),
        tags=(tags,) if isinstance(tags, str) else tuple(tags or ()),
        subset=_column(row, columns["subset"], SUBSET_COLUMNS),
    )


def _column(row: Mapping[str, Any], given: str | None, usual: Iterable[str]) -> Any:
    if given is None:
        return next((row[name] for name in usual if row.get(name) is not None), None)
    if given not in row:
        raise ValueError(f"it has no column {given!r}; the columns are {sorted(row)}")
    return row[given]
