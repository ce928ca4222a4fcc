"""Annotations of AlpacaEval: for every model a JSON list of instructions and preferences against one reference."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zooter_hf.conversion.reward_tables.files import explain, find_files, number, place, read_list
from zooter_hf.conversion.reward_tables.merging import Merger
from zooter_hf.modeling import ExpertSpec


FORMAT = "AlpacaEval annotations"
_EXPECTED = "an annotation has `instruction`, `generator_1`, `generator_2` and `preference` (1 to 2, or null)"


def experts(source: str | Path) -> list[ExpertSpec]:
    """Reads the experts: the annotations say no more than their names, which the rows carry.

    Raises:
        OSError: If there is no annotation.
    """
    _files(source)
    return []


def read(
    source: str | Path, annotator: str | None = None, reference: bool = False
) -> Iterator[tuple[str, dict[str, Any] | Exception]]:
    """Reads the rows: the reward of a model is the probability that its output is preferred to the reference's.

    That is `preference - 1`; 0, an old way to write a draw, counts as 0.5. The data set of an instruction is its tag
    and subset.

    Args:
        source: A folder with an `annotations.json` a model, as AlpacaEval writes them, or one such file.
        annotator: Whose annotations count, where a folder holds those of several.
        reference: Whether the reference is an expert too: against itself it is a draw, 0.5, everywhere.

    Raises:
        OSError: If there is no `annotations.json`.
        ValueError: If a file is no list, or annotators or references are mixed, whose preferences cannot be compared.
    """
    merger = Merger()
    annotators: dict[Any, None] = {}
    references: dict[str, None] = {}
    of_reference: dict[Any, tuple[str, dict[str, Any], Any]] = {}
    for path in _files(source):
        for count, row in enumerate(read_list(path, FORMAT), start=1):
            where = f"{place(path, source)}, row {count}"
            try:
                if annotator is not None and row["annotator"] != annotator:
                    annotators.setdefault(row["annotator"])
                    continue
                common, its_reference, win_rate = _common(row), row["generator_1"], _win_rate(row["preference"])
                key, model, answer = common["query"], row["generator_2"], row.get("output_2")
                annotators.setdefault(row.get("annotator"))
                references.setdefault(its_reference)
                merger.add(where, key, model, common, rewards=win_rate, responses=answer)
                of_reference.setdefault(key, (where, common, row.get("output_1")))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                yield where, explain(error, _EXPECTED)
    if annotator is None and len(annotators) > 1:
        raise ValueError(
            f"{source} holds annotations by {list(annotators)}, which cannot be mixed. Choose one: `annotator=...`."
        )
    if annotator is not None and not references and annotators:
        raise ValueError(f"{source} holds no annotations by {annotator!r}, but by {list(annotators)}.")
    if len(references) > 1:
        raise ValueError(
            f"{source} compares with {list(references)}, and win rates against different references cannot be mixed. "
            "Give the folder of one."
        )
    if reference and references:
        (name,) = references
        for key, (where, common, answer) in of_reference.items():
            if name not in merger.experts_of(key):  # it may have been annotated itself
                merger.add(where, key, name, common, rewards=0.5, responses=answer)
    yield from merger


def _files(source: str | Path) -> list[Path]:
    # Outputs of models lie beside the annotations, in files of other names.
    return find_files(source, ".json" if Path(source).expanduser().is_file() else "annotations.json", FORMAT)


def _common(row: dict[str, Any]) -> dict[str, Any]:
    subset = row.get("dataset")
    return {"query": row["instruction"], "tags": [] if subset is None else [subset], "subset": subset}


def _win_rate(preference: Any) -> float | None:
    if isinstance(preference, float) and math.isnan(preference):  # what pandas makes of null
        return None
    value = number(preference)
    if value is None:
        return None
    if value == 0:
        return 0.5
    if not 1 <= value <= 2:
        raise ValueError(f"a preference lies between 1 and 2, got {value:g}")
    return value - 1
