"""Battles of Chatbot Arena (arXiv 2403.04132): two models, one question, and which answer a person preferred."""

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zooter_hf.conversion.reward_tables.bradley_terry import win_probabilities
from zooter_hf.conversion.reward_tables.files import explain, find_files, place
from zooter_hf.modeling import ExpertSpec


FORMAT = "a table of arena battles"
MODES = ("wins", "bradley_terry")
_EXPECTED = "a battle has a question (`question`, `prompt` or `conversation_a`), `model_a`, `model_b` and `winner`"
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_QUESTIONS = ("question", "prompt", "conversation", "conversation_a")
_COLUMNS = (*_QUESTIONS, "model_a", "model_b", "winner", "winner_model_a", "winner_model_b", "winner_tie")
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError)
_SCORES = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "tie (bothbad)": 0.5, "both_bad": 0.5}


def experts(source: str | Path) -> list[ExpertSpec]:
    """Reads the experts: all models that fight, by name, in the order of the alphabet.

    Raises:
        OSError: If there is no table.
    """
    names = set()
    for _, row in _records(source):
        try:
            names.update(_battle(row)[:2])
        except _MALFORMED:
            continue  # which `read` reports
    return [ExpertSpec(name) for name in sorted(names)]


def read(
    source: str | Path, mode: str = "wins", clusters: str | None = None, penalty: float = 1.0
) -> Iterator[tuple[str, dict[str, Any] | Exception]]:
    """Reads the battles, a row each; the rewards of models that nothing is known of are null.

    The query is the question, or what the user said in all turns of a longer conversation.

    Args:
        source: A file of JSON lines, JSON, CSV or Parquet, or a folder of them.
        mode: `"wins"`: 1 for the model that won, 0 for the other, 0.5 for both in a draw. `"bradley_terry"`: for every
            model that fought in the query's cluster its probability of winning there against another of them, drawn
            at random, by a Bradley-Terry model.
        clusters: The column that says which cluster a query is in (`"language"`), or which clusters, if it is a list
            of tags or an object of yes and no (`"category_tag"`). They become the tags of the query; in several, its
            reward is the mean over them. `"bradley_terry"` needs it.
        penalty: Weight of the L2 penalty on the strengths of the models: the larger, the nearer to 0.5 are the rewards
            of models that fought little.

    Raises:
        OSError: If there is no such file.
        ValueError: If there is no such mode, clusters are missing, or a file cannot be read.
        ImportError: If `"bradley_terry"` is asked for without scikit-learn.
    """
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {MODES}, got {mode!r}.")
    if mode == "bradley_terry" and clusters is None:
        raise ValueError(
            "Bradley-Terry scores are the same for all queries of a cluster: say which column has the cluster, for "
            'instance `clusters="language"`.'
        )
    names, battles = set(), defaultdict(list)
    for _, row in _records(source, clusters):
        try:
            battle = _battle(row)
            names.update(battle[:2])
            for cluster in _clusters(row, clusters):
                battles[cluster].append(battle)
        except _MALFORMED:
            continue  # which is reported below
    order, chances = sorted(names), {}
    if mode == "bradley_terry":
        chances = {cluster: win_probabilities(fought, penalty) for cluster, fought in battles.items()}
    for where, row in _records(source, clusters):
        try:
            model_a, model_b, score = _battle(row)
            its_clusters = _clusters(row, clusters)
            query = _question(row)
        except _MALFORMED as error:
            yield where, explain(error, _EXPECTED)
            continue
        known = {model_a: score, model_b: 1 - score}
        if mode == "bradley_terry":
            known = _means([chances[cluster] for cluster in its_clusters])
        rewards = {name: known.get(name) for name in order}
        yield where, {"query": query, "rewards": rewards, "tags": its_clusters}


def _records(source: str | Path, clusters: str | None = None) -> Iterator[tuple[str, Any]]:
    """Yields rows as they stand in the files, and where."""
    for path in find_files(source, _SUFFIXES, FORMAT):
        try:
            for count, row in enumerate(_open(path, {*_COLUMNS, clusters}), start=1):
                yield f"{place(path, source)}, row {count}", row
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error


def _open(path: Path, columns: set[str | None]) -> Iterator[Any]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        for batch in file.iter_batches(columns=[name for name in file.schema_arrow.names if name in columns]):
            yield from batch.to_pylist()
    elif path.suffix == ".csv":
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a conversation may be longer than the module expects
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    elif path.suffix == ".json":
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ValueError("it is not a list of battles")
        yield from rows
    else:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    yield _parsed(line, default=line)


def _battle(row: Any) -> tuple[str, str, float]:
    """Reads which two models fought, and the score of the first."""
    if not isinstance(row, dict):
        raise ValueError("it is no object")
    if None in row:
        raise ValueError("it has more cells than the header")
    pair = (row["model_a"], row["model_b"])
    if not all(isinstance(name, str) and name and name == name.strip() for name in pair) or pair[0] == pair[1]:
        raise ValueError(f"two models fight, got {pair[0]!r} and {pair[1]!r}")
    return (*pair, _score(row))


def _score(row: dict[str, Any]) -> float:
    """Returns 1 if the first model won, 0 if the other did, 0.5 for a draw."""
    if "winner" in row:
        if row["winner"] not in _SCORES:
            raise ValueError(f"`winner` is one of {list(_SCORES)}, got {row['winner']!r}")
        return _SCORES[row["winner"]]
    won = [name for name in ("model_a", "model_b", "tie") if str(row[f"winner_{name}"]) in ("1", "1.0", "True")]
    if len(won) != 1:
        raise ValueError(f"one of `winner_model_a`, `winner_model_b` and `winner_tie` is 1, got {won}")
    return _SCORES[won[0]]


def _question(row: dict[str, Any]) -> str | list[dict[str, Any]]:
    name = next((name for name in _QUESTIONS if row.get(name)), None)
    if name is None:
        raise ValueError(f"it has none of {_QUESTIONS}")
    value = row[name]
    if name != "question" and isinstance(value, str) and value.startswith("["):
        parsed = _parsed(value, default=None)
        # A list of turns as text, unless it is a question that happens to begin with a bracket.
        if isinstance(parsed, list) and all(turn is None or isinstance(turn, str | dict) for turn in parsed):
            value = parsed
    if not isinstance(value, list):
        return value
    turns = value
    if all(isinstance(turn, dict) for turn in turns):
        turns = [turn["content"] for turn in turns if turn["role"] == "user"]
    if not turns or not all(isinstance(turn, str | list) and turn for turn in turns):
        raise ValueError(f"`{name}` has a turn of the user without text")
    if len(turns) == 1 and isinstance(turns[0], str):
        return turns[0]
    return [{"role": "user", "content": turn} for turn in turns]


def _clusters(row: dict[str, Any], column: str | None) -> list[str]:
    """Reads the clusters of a query: one, a list, or the names of what is true in an object, `other` if nothing is."""
    if column is None:
        return []
    value = row[column]
    if isinstance(value, str) and value[:1] in ("[", "{"):
        value = _parsed(value, default=value)
    if isinstance(value, dict):
        return _true(value) or ["other"]
    values = [str(one) for one in (value if isinstance(value, list) else [value]) if one not in (None, "")]
    if not values:
        raise ValueError(f"its {column!r} names no cluster")
    return list(dict.fromkeys(values))


def _true(value: dict[str, Any]) -> list[str]:
    names = []
    for name, content in value.items():
        names += _true(content) if isinstance(content, dict) else [name] if content is True else []
    return names


def _parsed(text: str, default: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return default


def _means(of_clusters: Sequence[dict[str, float]]) -> dict[str, float]:
    values = defaultdict(list)
    for of_cluster in of_clusters:
        for name, value in of_cluster.items():
            values[name].append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}
