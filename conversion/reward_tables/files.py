"""What the readers share: the files of a source, and the numbers and errors of a row."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def find_files(source: str | Path, suffix: str | Sequence[str], format: str) -> list[Path]:
    """Finds the files of a source: itself, or those in the folder and its subfolders.

    Args:
        source: File or folder.
        suffix: What names of files end in; one of several.
        format: What is read, for the message.

    Raises:
        OSError: If there is none; says what was expected.
    """
    suffixes = (suffix,) if isinstance(suffix, str) else tuple(suffix)
    path = Path(source).expanduser()
    if path.is_file() and path.name.endswith(suffixes):
        return [path]
    files = sorted({file for end in suffixes for file in path.rglob(f"*{end}")}) if path.is_dir() else []
    if not files:
        there = "holds none" if path.is_dir() else "is no such file" if path.is_file() else "is not there"
        wanted = " or ".join(f"*{end}" for end in suffixes)
        raise OSError(f"{source} {there}: {format} needs a {wanted} file, or a folder of them.")
    return files


def read_list(path: Path, format: str) -> list[Any]:
    """Reads a JSON file that holds a list.

    Raises:
        ValueError: If it is not JSON, or holds something else.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Give the folder that holds {format} alone.") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path} is not a list of rows. Give the folder that holds {format} alone.")
    return rows


def place(path: Path, source: str | Path) -> str:
    """Names a file as a person finds it within its source."""
    root = Path(source).expanduser()
    return path.relative_to(root).as_posix() if path != root else path.name


def number(value: Any) -> float | None:
    """Returns a score or price; `None` for null or an empty cell.

    Raises:
        ValueError: If it is something else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"a score must be a finite number or null, got {value!r}")
    return float(value)


def explain(error: Exception, expected: str) -> ValueError:
    """Says what is wrong with a row, and what was expected of it."""
    what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return ValueError(f"{what}; {expected}")
