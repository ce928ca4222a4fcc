"""Results by key, in files that are only ever appended to: what was written before a run was killed is kept."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers.utils import logging


logger = logging.get_logger(__name__)


def key_of(*parts: Any) -> str:
    """Returns a key for JSON values: the same for the same values, and for no others."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class StoreError(OSError):
    """Results cannot be written."""


class Store:
    """Results of one stage, by key. In memory are keys and places; values are read when they are asked for.

    Several processes may each append to a shard of their own; every one reads all shards.

    Args:
        folder: Where the files are; made if it is not there.
        shard: The file that this process appends to.

    Raises:
        OSError: If the folder cannot be written to.
    """

    def __init__(self, folder: Path, shard: int = 0):
        self.folder = folder
        self._own = folder / f"{shard:05d}.jsonl"
        self._places: dict[str, tuple[Path, int]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._cut_torn_line()
        except OSError as error:
            raise OSError(f"{folder} cannot be written to ({error.strerror}). Give another output folder.") from error
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: str) -> Any:
        path, place = self._places[key]
        with path.open("rb") as file:
            file.seek(place)
            return json.loads(file.readline())["value"]

    def get(self, key: str) -> Any | None:
        """Returns the result of a key, `None` if there is none."""
        if key not in self:
            return None
        return self[key]

    def append(self, results: Iterable[tuple[str, Any]]):
        """Writes results; they are on the disk when this returns.

        Raises:
            StoreError: If the disk is full, or the folder can no longer be written to; nothing is half written.
        """
        lines = [(key, json.dumps({"key": key, "value": value}).encode() + b"\n") for key, value in results]
        if not lines:
            return
        try:
            with self._own.open("ab", buffering=0) as file:
                start = file.tell()
                try:
                    _write_all(file, b"".join(line for _, line in lines))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(start)
                    raise
        except OSError as error:
            raise StoreError(
                error.errno,
                f"{self._own} cannot be written to: {error.strerror}. The {len(self):,} results before are kept; make "
                "room and run the same command again to go on",
            ) from error
        for key, line in lines:
            self._places[key] = (self._own, start)
            start += len(line)

    def refresh(self):
        """Reads the keys again, of all shards."""
        self._places.clear()
        for path in sorted(self.folder.glob("*.jsonl")):
            unreadable = 0
            with path.open("rb") as file:
                place = 0
                for line in file:
                    try:
                        self._places[json.loads(line)["key"]] = (path, place)
                    except (ValueError, KeyError, TypeError):
                        unreadable += line.endswith(b"\n")  # another process may be writing the last line
                    place += len(line)
            if unreadable:
                logger.warning(f"{path}: {unreadable} lines cannot be read; what they held is made again.")

    def _cut_torn_line(self):
        """Takes away a last line that a run was killed in the middle of."""
        with self._own.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if not end:
                return
            file.seek(end - 1)
            if file.read(1) == b"\n":
                return
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)


def _write_all(file, data: bytes):
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
