"""The reward table: what every expert's answer to every query was worth."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers.utils import logging

from zooter_hf.modeling import ExpertSpec
from zooter_hf.rewards import storage
from zooter_hf.rewards.rows import PER_EXPERT, RowProblem, list_problems
from zooter_hf.rewards.splitting import deal_folds, deal_subsets, split_indices
from zooter_hf.rewards.summary import TableSummary, summarize


if TYPE_CHECKING:
    from datasets import Dataset
    from huggingface_hub import CommitInfo


logger = logging.get_logger(__name__)


class RewardTable:
    """Queries, the rewards of all experts on them, and perhaps tags, subsets, spreads, costs and responses.

    The rows lie in a memory-mapped `datasets.Dataset`, so a table may be larger than the memory. Make one with
    [`~RewardTable.load`] or [`~RewardTable.from_rows`].

    Args:
        dataset: Columns `query` (a string or chat messages), `rewards`, `tags`, `subset`, and perhaps `spreads` (of
            the rewards of several sampled answers), `costs` (US dollars) and `responses`; checked already.
        experts: The experts, in the order of the columns of every array of this table.
        left_out: What is wrong with the rows that were left out.

    Example:
    ```python
    >>> from zooter_hf import RewardTable

    >>> table = RewardTable.from_rows(
    ...     [
    ...         {"query": "2 + 2 = ?", "rewards": {"small": 1.0, "large": 1.0}, "tags": ["math"], "subset": "sums"},
    ...         {"query": "Prove it.", "rewards": {"small": 0.0, "large": None}, "tags": ["math"], "subset": "proofs"},
    ...     ]
    ... )
    >>> table.expert_names
    ['small', 'large']
    >>> table.rewards
    tensor([[1., 1.],
            [0., nan]], dtype=torch.float64)

    ```
    """

    def __init__(
        self, dataset: "Dataset", experts: Sequence[ExpertSpec], left_out: Sequence[RowProblem] = (), _directory=None
    ):
        self.dataset = dataset
        self.experts = list(experts)
        self.left_out = tuple(left_out)
        self._directory = _directory  # kept for as long as the memory-mapped files in it are needed

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        experts: Sequence[ExpertSpec | Mapping[str, Any] | str] | None = None,
    ) -> "RewardTable":
        """Makes a table of rows, which may come from a generator.

        Args:
            rows: As they stand in a file: `query`, `rewards`, and perhaps `tags`, `subset`, `spreads`, `costs`,
                `responses`.
            experts: The experts and their order. By default those that the first row names.

        Raises:
            ValueError: If rows are malformed; names the first ones by their number, counted from 1.
        """
        located = ((f"row {number}", row) for number, row in enumerate(rows, start=1))
        return cls.from_located_rows(located, experts)

    @classmethod
    def from_located_rows(
        cls,
        rows: "storage.LocatedRows",
        experts: Sequence[ExpertSpec | Mapping[str, Any] | str] | None = None,
        leave_out_malformed: bool = False,
    ) -> "RewardTable":
        """Makes a table of rows that say where they come from, as readers of files yield them.

        Args:
            rows: Pairs of where a row stands, for messages, and the row, or the error that reading it met.
            experts: The experts and their order. By default those that the first sound row names.
            leave_out_malformed: Whether malformed rows are left out and listed in `left_out`, or an error.

        Raises:
            ValueError: If no usable row is left, or rows are malformed and may not be left out.
        """
        rows = iter(rows)
        seen = []
        if experts is None:
            for item in rows:
                seen.append(item)
                if isinstance(item[1], Mapping) and isinstance(item[1].get("rewards"), Mapping):
                    experts = list(item[1]["rewards"])
                    break
        if experts is None:
            problems = [RowProblem(where, str(row)) for where, row in seen if isinstance(row, Exception)]
            raise ValueError(
                "There is no row that names experts: a row needs `query` and `rewards`, {expert: number}."
                + (f" Rows that could not be read:\n{list_problems(problems)}" if problems else "")
            )
        specs = _check_experts(experts)
        directory = storage.temporary_directory()
        names = [expert.name for expert in specs]
        dataset, left_out = storage.write_rows(chain(seen, rows), names, Path(directory.name), leave_out_malformed)
        return cls(dataset, specs, _report(left_out), directory)

    @classmethod
    def load(
        cls,
        source: "str | Path",
        *,
        experts: Sequence[ExpertSpec | Mapping[str, Any] | str] | None = None,
        split: str = "train",
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> "RewardTable":
        """Loads a table.

        Args:
            source: A file of JSON lines or Parquet; a folder of such files, or one that [`~RewardTable.save`] or
                `Dataset.save_to_disk` wrote; or the id of a dataset on the Hub.
            experts: The experts and their order. By default what the folder says of them, or the first row.
            split: Which split, where there are several.
            revision: Branch, tag or commit of a dataset on the Hub.
            token: The token for the Hub, if it is not the one that you are logged in with.

        Raises:
            OSError: If there is no such file, folder or dataset.
            ValueError: If rows are malformed; names the first ones.
        """
        path = Path(source).expanduser()
        if not path.exists():
            path = _download(str(source), revision, token)
        folder = path if path.is_dir() else path.parent
        if experts is None:
            experts = _read_experts(folder / storage.EXPERTS_FILE if path.is_dir() else _sidecar(path))
        dataset = storage.saved_dataset(path, split) if path.is_dir() else None
        if dataset is None:
            files = storage.find_files(path, split) if path.is_dir() else [path]
            if files[0].suffix in storage.JSON_LINES:
                return cls.from_located_rows(storage.read_json_lines(files), experts)
            if files[0].suffix != ".parquet":
                raise ValueError(f"{path} is neither a .jsonl nor a .parquet file. Convert it first: zooter convert.")
        directory = storage.temporary_directory()
        if dataset is None:
            dataset = storage.open_dataset(files, Path(directory.name))
        rewards = dataset.features.get("rewards")
        if "query" not in dataset.features or not isinstance(rewards, dict):
            raise ValueError(
                f"{source} is no reward table: it needs the columns `query` and `rewards` (an object with one number "
                f"an expert), and has {dataset.column_names}."
            )
        specs = _check_experts(list(rewards) if experts is None else experts)
        dataset, left_out = storage.check_dataset(dataset, [expert.name for expert in specs], Path(directory.name))
        return cls(dataset, specs, _report(left_out), directory)

    def save(self, path: "str | Path", overwrite: bool = False) -> Path:
        """Writes the table.

        Args:
            path: A file ending in `.jsonl` or `.parquet`, or a folder, which then has the layout of a dataset on the
                Hub: Parquet files, the experts with their prices, and a dataset card. Beside a file, the experts go
                to `<file>.experts.json` if more than their names is known.
            overwrite: Whether a table that is there may be replaced.

        Raises:
            FileExistsError: If something is there already.
        """
        path = Path(path).expanduser()
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} is there already. Give another path, or `overwrite=True` to replace it.")
        if path.suffix in (*storage.JSON_LINES, ".parquet"):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written beside it and moved, so that a table that is replaced is there until the new one is.
            partial = path.with_name(f".{path.name}.partial")
            if path.suffix == ".parquet":
                with storage.quiet_datasets():
                    self.dataset.to_parquet(str(partial))
            else:
                with partial.open("w", encoding="utf-8") as file:
                    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self)
            partial.replace(path)
            if any(len(expert.to_dict()) > 1 for expert in self.experts):
                _write_experts(self.experts, _sidecar(path))
            return path
        from zooter_hf.rewards.card import replace_folder, write_dataset_card

        with replace_folder(path) as folder:
            storage.write_parquet(self.dataset, folder)
            _write_experts(self.experts, folder / storage.EXPERTS_FILE)
            write_dataset_card(self, folder, title=path.name)
        return path

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
    ) -> "CommitInfo":
        """Uploads the table as a dataset, in one commit: Parquet files, experts, and a dataset card.

        A card on the Hub that a person has edited is kept.

        Args:
            repo_id: Where to: owner/name. Made if it is not there.
            private: Whether the dataset is private, if it is made.
            token: The token for the Hub, if it is not the one that you are logged in with.
            revision: Branch to push to.
            commit_message: Message of the commit.
            create_pr: Whether to open a pull request instead of committing.

        Raises:
            huggingface_hub.errors.HfHubHTTPError: If the Hub refuses (wrong token, no permission, ...).
        """
        from zooter_hf.rewards.card import push_table

        return push_table(
            self,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message or "Upload reward table",
            create_pr=create_pr,
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one row, as it stands in a file; columns that are empty in it are left out."""
        return _present(self.dataset[index])

    def __iter__(self):
        """Yields the rows, one after the other."""
        return map(_present, self.dataset)

    def __repr__(self):
        return f"RewardTable({len(self)} queries, experts {self.expert_names})"

    @property
    def expert_names(self) -> list[str]:
        """Names of the experts, in the order of the columns of `rewards`."""
        return [expert.name for expert in self.experts]

    @property
    def queries(self) -> Sequence[str | list[dict[str, Any]]]:
        """The queries; read from the disk as they are asked for."""
        return self.dataset["query"]

    @property
    def rewards(self) -> torch.Tensor:
        """Float64 of shape `(queries, experts)`, NaN where a reward is missing."""
        return self._matrix("rewards")

    @property
    def costs(self) -> torch.Tensor | None:
        """US dollars, float64 of shape `(queries, experts)`, NaN where not known; `None` if the table has no costs."""
        return self._matrix("costs") if "costs" in self.dataset.column_names else None

    @property
    def spreads(self) -> torch.Tensor | None:
        """Standard deviations of the rewards over several sampled answers; `None` if the table has none.

        Float64 of shape `(queries, experts)`, NaN where there were fewer than two answers.
        """
        return self._matrix("spreads") if "spreads" in self.dataset.column_names else None

    @property
    def tags(self) -> list[list[str]]:
        """The tags of every query."""
        return [of_query or [] for of_query in self._column("tags").to_pylist()]

    @property
    def subsets(self) -> list[str | None]:
        """The subset of every query, `None` for none."""
        return self._column("subset").to_pylist()

    def texts(self) -> list[str]:
        """Returns the queries as text, in memory: strings as they are, of chats the contents of all turns."""
        return [query if isinstance(query, str) else json.dumps(query, ensure_ascii=False) for query in self.queries]

    def _column(self, name: str):
        return self.dataset.select_columns([name]).with_format("arrow")[:][name]

    def _matrix(self, name: str) -> torch.Tensor:
        import pyarrow.compute as pc

        column = self._column(name)
        values = np.empty((len(self), len(self.experts)), dtype=np.float64)
        for index, expert in enumerate(self.expert_names):
            of_expert = pc.struct_field(column, [expert])
            values[:, index] = pc.fill_null(of_expert, float("nan")).to_numpy()
        return torch.from_numpy(values)

    def _with(self, dataset: "Dataset", experts: Sequence[ExpertSpec] | None = None) -> "RewardTable":
        return type(self)(dataset, self.experts if experts is None else experts, _directory=self._directory)

    def _from_own_rows(self, rows: Iterable[dict[str, Any]], experts: Sequence[ExpertSpec]) -> "RewardTable":
        return type(self).from_rows(rows, experts)

    def select(self, indices: Iterable[int]) -> "RewardTable":
        """Returns the table of some rows, in the order that is given."""
        return self._with(self.dataset.select([int(index) for index in indices]))

    def select_subsets(self, names: Iterable[str]) -> "RewardTable":
        """Returns the table of the rows of some subsets.

        Raises:
            ValueError: If there is no such subset.
        """
        names, subsets = set(names), self.subsets
        if unknown := sorted(names - set(subsets)):
            raise ValueError(f"There are no subsets {unknown}; the table has {sorted(set(filter(None, subsets)))}.")
        return self.select([index for index, subset in enumerate(subsets) if subset in names])

    def select_experts(self, names: Sequence[str]) -> "RewardTable":
        """Returns the table of some experts, in the order that is given.

        Queries for which none of them has a reward are left out and reported.

        Raises:
            ValueError: If an expert is not in the table or named twice.
        """
        specs = {expert.name: expert for expert in self.experts}
        if unknown := [name for name in names if name not in specs]:
            raise ValueError(f"There are no experts {unknown}; the table has {self.expert_names}.")
        rows = (
            {
                **row,
                **{column: {name: row[column].get(name) for name in names} for column in PER_EXPERT if column in row},
            }
            for row in self
        )
        return self._from_own_rows(rows, _check_experts([specs[name] for name in names]))

    def rename_experts(self, names: Mapping[str, str]) -> "RewardTable":
        """Returns the table with experts renamed: `{"old": "new"}`; the others keep their names.

        Raises:
            ValueError: If an expert is not in the table, or two would have the same name.
        """
        if unknown := [name for name in names if name not in self.expert_names]:
            raise ValueError(f"There are no experts {unknown}; the table has {self.expert_names}.")
        specs = _check_experts(
            [
                ExpertSpec.from_value({**expert.to_dict(), "name": names.get(expert.name, expert.name)})
                for expert in self.experts
            ]
        )
        rows = (
            {
                **row,
                **{
                    column: {names.get(name, name): value for name, value in row[column].items()}
                    for column in PER_EXPERT
                    if column in row
                },
            }
            for row in self
        )
        return self._from_own_rows(rows, specs)

    def with_tags(self, tags: Sequence[Sequence[str]]) -> "RewardTable":
        """Returns the table with other tags, one list a query."""
        if len(tags) != len(self):
            raise ValueError(f"There are {len(self)} queries, but tags for {len(tags)}.")
        column = [list(of_query) for of_query in tags]
        dataset = self.dataset.remove_columns("tags").add_column("tags", column, feature=self.dataset.features["tags"])
        return self._with(dataset)

    def folds(self, folds: int = 5, seed: int = 0, *, by: Literal["row", "subset"] = "row") -> np.ndarray:
        """Deals the queries over folds, for cross-validation.

        Args:
            folds: How many.
            seed: Which queries they hold.
            by: `"row"` deals every subset evenly, and keeps queries together that differ in nothing but case, digits
                and punctuation. `"subset"` deals whole subsets, for what a router makes of kinds it has not seen.

        Returns:
            `numpy.ndarray` of shape `(queries,)`: Numbers from 0 to `folds - 1`.

        Raises:
            ValueError: If there are fewer than two folds, or fewer distinct queries or subsets than folds.
        """
        if by not in ("row", "subset"):
            raise ValueError(f"`by` must be 'row' or 'subset', got {by!r}.")
        if by == "subset":
            return deal_subsets(self.subsets, folds, seed)
        return deal_folds(self.texts(), self.subsets, folds, seed)

    def split(
        self, test_share: float = 0.2, *, by: Literal["row", "subset"] = "row", seed: int = 0
    ) -> tuple["RewardTable", "RewardTable"]:
        """Splits the table in two.

        Args:
            test_share: Share of the second part: of the rows, or of the subsets.
            by: `"row"` takes that share of every subset, and keeps queries together that differ in nothing but case,
                digits and punctuation. `"subset"` puts whole subsets into the second part, for what the first has not
                seen.
            seed: Which rows or subsets.

        Returns:
            Two tables, training and test.

        Raises:
            ValueError: If a part would be empty.
        """
        train, test = split_indices(self.texts(), self.subsets, test_share, seed, by)
        if not len(train) or not len(test):
            raise ValueError(f"A share of {test_share} of {len(self)} queries leaves a part empty.")
        return self.select(train), self.select(test)

    def join(self, other: "RewardTable", how: Literal["inner", "outer"] = "inner") -> "RewardTable":
        """Joins the experts of another table to this one, on the query.

        Args:
            other: A table of other experts. Its tags are added; subset and the like are this table's where both have
                them.
            how: Whether queries that only one table has are left out (`"inner"`) or kept, with nulls (`"outer"`).

        Raises:
            ValueError: If an expert is in both, a query stands twice in a table, or no query is in both.
        """
        if both := sorted(set(self.expert_names) & set(other.expert_names)):
            raise ValueError(f"The experts {both} are in both tables. Rename them first: `table.rename_experts`.")
        if how not in ("inner", "outer"):
            raise ValueError(f"`how` must be 'inner' or 'outer', got {how!r}.")
        mine, theirs = _rows_by_query(self, "this table"), _rows_by_query(other, "the other table")
        if not mine.keys() & theirs.keys():
            raise ValueError("The tables have no query in common: they must be the same text, to the character.")
        experts = self.experts + other.experts
        keys = [key for key in mine if how == "outer" or key in theirs]
        keys += [key for key in theirs if how == "outer" and key not in mine]

        def rows():
            for key in keys:
                left = self[mine[key]] if key in mine else {}
                right = other[theirs[key]] if key in theirs else {}
                row = {**right, **left}
                row["tags"] = list(dict.fromkeys([*left.get("tags", []), *right.get("tags", [])]))
                for column in PER_EXPERT:
                    values = {**(left.get(column) or {}), **(right.get(column) or {})}
                    row[column] = {expert.name: values.get(expert.name) for expert in experts} if values else None
                yield row

        return self._from_own_rows(rows(), experts)

    def summary(self) -> TableSummary:
        """Computes statistics: who is good at what, how often each expert is best, how much routing could gain."""
        return summarize(self.expert_names, self.rewards, self.subsets, self.tags, self.costs)


def _check_experts(experts: Sequence[ExpertSpec | Mapping[str, Any] | str]) -> list[ExpertSpec]:
    specs = [ExpertSpec.from_value(expert) for expert in experts]
    names = [spec.name for spec in specs]
    if not names:
        raise ValueError("There is no row that names experts: a row needs `query` and `rewards`, {expert: number}.")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Experts are named more than once: {repeated}.")
    return specs


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _rows_by_query(table: RewardTable, name: str) -> dict[str, int]:
    rows: dict[str, int] = {}
    for index, query in enumerate(table.queries):
        key = query if isinstance(query, str) else json.dumps(query, ensure_ascii=False, sort_keys=True)
        if key in rows:
            raise ValueError(f"A query stands twice in {name}, in rows {rows[key] + 1} and {index + 1}: {key[:80]!r}.")
        rows[key] = index
    return rows


def _report(left_out: Sequence[RowProblem]) -> Sequence[RowProblem]:
    if left_out:
        logger.warning(f"{len(left_out)} rows are left out:\n{list_problems(left_out)}")
    return left_out


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.experts.json")


def _read_experts(path: Path) -> list[ExpertSpec] | None:
    if not path.is_file():
        return None
    try:
        return [ExpertSpec.from_value(expert) for expert in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} does not describe experts: {error}") from error


def _write_experts(experts: Sequence[ExpertSpec], path: Path):
    text = json.dumps([expert.to_dict() for expert in experts], indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _download(source: str, revision: str | None, token: str | bool | None) -> Path:
    """Fetches a dataset from the Hub; returns its folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if (
        source.count("/") != 1
        or source.startswith((".", "/", "~"))
        or Path(source).suffix in (*storage.JSON_LINES, ".parquet")
    ):
        raise OSError(f"There is no file or folder {source}. Give one that is there, or a dataset's id: owner/name.")
    try:
        patterns = ["*.parquet", "*.jsonl", storage.EXPERTS_FILE]
        return Path(
            snapshot_download(source, repo_type="dataset", revision=revision, token=token, allow_patterns=patterns)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise OSError(
            f"{source} is no file or folder here, and the Hub does not give it as a dataset: {error}"
        ) from error
