"""Readers of other people's score tables; one file a format, all of one shape.

Each has `read(source)`, which yields pairs of where a row stands and the row as a reward table has it (`query`,
`rewards`, `tags`, `subset`, perhaps `costs`), or the error that reading it met; and `experts(source)`, what the source
says of the experts besides the names that its rows carry. A new format is a new file, and its name in `FORMATS`.
"""

from importlib import import_module
from inspect import signature
from pathlib import Path

from zooter_hf.rewards import RewardTable


FORMATS = ("alpacaeval", "arena", "llmrouter", "llmrouterbench", "mixinstruct", "routerbench", "routerdc")


def load(source: str | Path, format: str, **options) -> RewardTable:
    """Loads a table of another format; malformed rows are left out, counted and named in `left_out`.

    Args:
        source: File or folder.
        format: One of `FORMATS`.
        options: Passed on to the format's `read`.

    Raises:
        OSError: If there is no such file or folder, or it holds no file of that format.
        ValueError: If there is no such format, or no row can be used.
        TypeError: If the format has no such option.
    """
    if format not in FORMATS:
        raise ValueError(f"There is no reader for {format!r}. There are readers for {', '.join(FORMATS)}.")
    reader = import_module(f"{__name__}.{format}")
    known = list(signature(reader.read).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"The reader of {format!r} has no options {unknown}. It has {known or 'none'}.")
    experts = reader.experts(source)
    return RewardTable.from_located_rows(reader.read(source, **options), experts or None, leave_out_malformed=True)
