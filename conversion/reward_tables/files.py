"""What the readers share: finding the files of a source, and reading numbers."""

import math
from pathlib import Path
from typing import Any


def find_files(source: str | Path, suffix: str, format: str) -> list[Path]:
    """Finds the files of a source: itself, or those in the folder and its subfolders.

    Raises:
        OSError: If there is none; says what was expected.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == suffix:
        return [path]
    files = sorted(path.rglob(f"*{suffix}")) if path.is_dir() else []
    if not files:
        there = "holds none" if path.is_dir() else "is no such file" if path.is_file() else "is not there"
        raise OSError(f"{source} {there}: {format} needs a *{suffix} file, or a folder of them.")
    return files


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
