"""Reward tables on disk: Arrow files that are memory-mapped, Parquet, JSON lines and datasets on the Hub."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from zooter_hf.rewards.rows import PER_EXPERT, NoRewardError, RowProblem, check_row, list_problems


if TYPE_CHECKING:
    from datasets import Dataset, Features


logger = logging.get_logger(__name__)

EXPERTS_FILE = "experts.json"
BATCH_ROWS = 2_000
MAX_SHARD_BYTES = 500_000_000
JSON_LINES = (".jsonl", ".ndjson")
# What `Dataset.save_to_disk` leaves in a folder.
SAVED_DATASET = "state.json"
SAVED_DATASET_DICT = "dataset_dict.json"

LocatedRows = Iterable[tuple[str, "dict[str, Any] | Exception"]]


def features_of(expert_names: Sequence[str], chats: bool) -> "Features":
    """Returns the columns of a table, as the datasets library describes them.

    Queries are strings in a table that has no chats. Otherwise every one is stored as JSON, which keeps what messages
    carry beside role and text.
    """
    from datasets import Features, Json, List, Value

    return Features(
        {
            "query": Json() if chats else Value("string"),
            "rewards": {name: Value("float64") for name in expert_names},
            "tags": List(Value("string")),
            "subset": Value("string"),
            "spreads": {name: Value("float64") for name in expert_names},
            "costs": {name: Value("float64") for name in expert_names},
            "responses": {name: Value("string") for name in expert_names},
        }
    )


def write_rows(
    rows: LocatedRows, expert_names: Sequence[str], directory: Path, leave_out_malformed: bool = False
) -> tuple["Dataset", list[RowProblem]]:
    """Checks rows one after the other and writes them to an Arrow file, so that they need not fit in memory.

    Args:
        rows: Pairs of where a row stands and the row, or the error that reading it met.
        expert_names: The experts.
        directory: Where the Arrow files go.
        leave_out_malformed: Whether malformed rows are left out and reported, or an error.

    Returns:
        The memory-mapped dataset, and what is wrong with the rows that were left out.

    Raises:
        ValueError: If rows are malformed; names the first ones.
    """
    from datasets import Dataset
    from datasets.arrow_writer import ArrowWriter

    left_out, malformed = [], []
    chats, filled = False, dict.fromkeys(PER_EXPERT[1:], False)
    path = directory / "rows.arrow"
    # Strings are JSON as well until it is known that there is no chat: a string that happens to be JSON stays one.
    with ArrowWriter(path=str(path), features=features_of(expert_names, chats=True)) as writer:
        for where, row in rows:
            try:
                if isinstance(row, Exception):
                    raise row
                row = check_row(row, expert_names)
            except NoRewardError as error:
                left_out.append(RowProblem(where, str(error)))
                continue
            except (ValueError, TypeError, KeyError) as error:
                malformed.append(RowProblem(where, str(error)))
                continue
            if malformed and not leave_out_malformed:
                continue  # only the other errors are of interest now
            chats = chats or not isinstance(row["query"], str)
            for name in filled:
                filled[name] = filled[name] or row[name] is not None
            writer.write({**row, "query": json.dumps(row["query"], ensure_ascii=False)})
        writer.finalize()
    if malformed and not leave_out_malformed:
        raise ValueError(f"{len(malformed)} malformed rows:\n{list_problems(malformed)}")
    if writer._num_examples == 0:
        problems = malformed + left_out
        raise ValueError("There are no usable rows" + (f":\n{list_problems(problems)}" if problems else "."))
    dataset = Dataset.from_file(str(path))
    dataset = dataset.remove_columns([name for name, is_filled in filled.items() if not is_filled])
    if not chats:
        features = dataset.features.copy()
        features["query"] = features_of(expert_names, chats=False)["query"]
        with quiet_datasets():
            dataset = dataset.map(
                lambda batch: {"query": list(batch["query"])},
                batched=True,
                batch_size=BATCH_ROWS,
                features=features,
                cache_file_name=str(directory / "table.arrow"),
            )
        path.unlink()
    return dataset, malformed + left_out


def check_dataset(
    dataset: "Dataset", expert_names: Sequence[str], directory: Path
) -> tuple["Dataset", list[RowProblem]]:
    """Checks a dataset of the columns of a table, column by column where it can.

    Raises:
        ValueError: If rows are malformed; names the first ones.
    """
    known = features_of(expert_names, chats=False)
    if extra := [name for name in dataset.column_names if name not in known]:
        logger.warning(f"Columns that a reward table does not have are passed over: {extra}.")
        dataset = dataset.remove_columns(extra)
    canonical = "tags" in dataset.column_names and "subset" in dataset.column_names
    canonical = canonical and all(dataset.features[name] == known[name] for name in dataset.column_names)
    if not canonical or not _is_sound(dataset, expert_names):
        # Row by row: it finds out which rows are malformed, and leaves out those that have no reward.
        rows = ((f"row {number}", row) for number, row in enumerate(dataset, start=1))
        return write_rows(rows, expert_names, directory)
    return dataset, []


def _is_sound(dataset: "Dataset", expert_names: Sequence[str]) -> bool:
    """Whether every row of a dataset with the features of a table would pass the check of rows."""
    import pyarrow.compute as pc

    for batch in dataset.with_format("arrow").iter(batch_size=100_000):
        queries = batch["query"]
        if queries.null_count or not pc.all(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(queries)), 0)).as_py():
            return False
        rewards = batch["rewards"].combine_chunks()
        if rewards.null_count or pc.any(pc.equal(batch["subset"], "")).as_py():
            return False
        any_known = None
        for name in expert_names:
            for column in ("rewards", "spreads", "costs"):
                if column not in batch.column_names:
                    continue
                values = pc.struct_field(batch[column].combine_chunks(), [name])
                if pc.any(pc.invert(pc.is_finite(values))).as_py():
                    return False
            is_known = pc.struct_field(rewards, [name]).is_valid()
            any_known = is_known if any_known is None else pc.or_(any_known, is_known)
        tags = pc.list_flatten(batch["tags"])
        if not pc.all(any_known).as_py() or tags.null_count or pc.any(pc.equal(tags, "")).as_py():
            return False
    return True


def read_json_lines(files: Sequence[Path]) -> Iterator[tuple[str, "dict[str, Any] | Exception"]]:
    """Reads rows from files of JSON lines; blank lines are passed over.

    Yields:
        Where the row stands, and the row, or the error that parsing it met.
    """
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                where = f"{file.name}, row {number}"
                try:
                    yield where, json.loads(line)
                except ValueError as error:
                    yield where, ValueError(f"it is not JSON: {error}")


def find_files(folder: Path, split: str) -> list[Path]:
    """Finds the data files of a folder: those of a split if files are named for splits, otherwise all.

    Raises:
        OSError: If there are none.
        ValueError: If files of several kinds lie side by side.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (*JSON_LINES, ".parquet") and path.is_file()]
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    files = [path for path in files if path.stem == split or path.stem.startswith(f"{split}-")] or files
    if not files:
        raise OSError(
            f"{folder} holds no reward table: there are no .parquet and no .jsonl files, and it is no saved dataset."
        )
    if len({path.suffix == ".parquet" for path in files}) > 1:
        raise ValueError(
            f"{folder} holds both Parquet and JSON lines: {[path.name for path in files]}. Name one file."
        )
    return files


def open_dataset(files: Sequence[Path], directory: Path) -> "Dataset":
    """Opens Parquet files as one memory-mapped dataset.

    Raises:
        ValueError: If a file is not Parquet.
    """
    from datasets import Dataset

    try:
        with quiet_datasets():
            return Dataset.from_parquet([str(file) for file in files], cache_dir=str(directory))
    except Exception as error:
        names = [file.name for file in files]
        raise ValueError(f"{names} cannot be read as Parquet: {error.__cause__ or error}") from error


def saved_dataset(folder: Path, split: str) -> "Dataset | None":
    """Opens a folder that `save_to_disk` of the datasets library wrote; `None` if it is not one.

    Raises:
        ValueError: If it holds several splits and not the one that is asked for.
    """
    from datasets import load_from_disk

    if (folder / SAVED_DATASET).is_file():
        return load_from_disk(str(folder))
    if (folder / SAVED_DATASET_DICT).is_file():
        splits = load_from_disk(str(folder))
        if split not in splits:
            raise ValueError(f"{folder} has the splits {sorted(splits)}, not {split!r}. Give one of them as `split`.")
        return splits[split]
    return None


def write_parquet(dataset: "Dataset", folder: Path):
    """Writes a dataset as Parquet files, as the Hub lays them out."""
    data = folder / "data"
    data.mkdir(parents=True)
    shards = max(1, -(-_bytes_of(dataset) // MAX_SHARD_BYTES))
    for index in range(shards):
        shard = dataset.shard(shards, index, contiguous=True)
        with quiet_datasets():
            shard.to_parquet(str(data / f"train-{index:05d}-of-{shards:05d}.parquet"))


def _bytes_of(dataset: "Dataset") -> int:
    share = len(dataset) / max(1, dataset.data.num_rows)  # a selection still refers to the whole
    return int(dataset.data.nbytes * share)


def temporary_directory() -> tempfile.TemporaryDirectory:
    """Makes a folder for the Arrow files of a table; it is removed when nothing refers to it any more."""
    return tempfile.TemporaryDirectory(prefix="zooter-rewards-", ignore_cleanup_errors=True)


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Keeps the progress bars of the datasets library, which come for every file, out of the terminal."""
    from datasets.utils import disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

    was_enabled = is_progress_bar_enabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if was_enabled:
            enable_progress_bars()
