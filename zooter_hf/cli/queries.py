"""Reads queries from a file or from standard input."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer


JSON_SUFFIXES = (".jsonl", ".ndjson")

FileOption = Annotated[
    str | None,
    typer.Option("--file", "-f", help="One query a line, as text or JSON (.jsonl); - for standard input."),
]
JsonLinesOption = Annotated[
    bool, typer.Option("--jsonl", help="The input is JSON lines, whatever the file is called.")
]


def read_queries(file: str, json_lines: bool = False) -> Iterator[Any]:
    """Reads queries, one a line; blank lines are passed over.

    Args:
        file: A path, or `-` for standard input. Files ending in `.jsonl` or `.ndjson` hold JSON lines, others text.
        json_lines: Whether the lines are JSON whatever the file is called: a string, a list of messages, or an object
            with `query`, `messages` or `text`.

    Raises:
        OSError: If the file cannot be read; at once, not when the first query is asked for.
        ValueError: If a line is not JSON; names the line.
    """
    if file == "-":
        return _read_lines(sys.stdin, "standard input", json_lines)
    if not Path(file).is_file():
        raise OSError(f"{file} is not a file. Give a file with one query a line, or - for standard input.")
    return _read_lines(open(file, encoding="utf-8"), file, json_lines or file.endswith(JSON_SUFFIXES))


def _read_lines(lines, name: str, json_lines: bool) -> Iterator[Any]:
    with lines:
        for number, line in enumerate(_decoded(lines, name), start=1):
            if not line.strip():
                continue
            if not json_lines:
                yield line.rstrip("\r\n")
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"Line {number} of {name} is not JSON: {error}.") from error


def _decoded(lines, name: str) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not UTF-8 text: {error.reason} at byte {error.start}. Convert it first."
        ) from error
