"""The folder of a run that is not finished: what it was asked for, its query embeddings, its checkpoints."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from zooter_hf.modeling import ZooterForRouting
from zooter_hf.rewards import RewardTable
from zooter_hf.routing import predict


logger = logging.get_logger(__name__)

_RUN_FILE = "run.json"


class UnfinishedRun:
    """A run between its beginning and its end.

    Args:
        folder: Where it lies; made if it is not there.
        run: Everything that decides what comes out of it, as JSON values.
        overwrite: Whether an unfinished run of another kind may be replaced.

    Raises:
        FileExistsError: If the folder holds an unfinished run that was asked for something else; says in what.
    """

    def __init__(self, folder: Path, run: dict[str, Any], overwrite: bool = False):
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        path = folder / _RUN_FILE
        run = json.loads(json.dumps(run))
        if folder.exists():
            before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            if before == run:
                return
            if not overwrite:
                differ = sorted(key for key in {*before, *run} if before.get(key) != run.get(key))
                raise FileExistsError(
                    f"{folder} holds an unfinished run that differs in {', '.join(differ)}. Start it again as it was "
                    "to go on with it, or replace it: `overwrite=True` (--overwrite)."
                )
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        path.write_text(json.dumps(run, indent=2), encoding="utf-8")

    def last_checkpoint(self) -> str | None:
        """Returns the folder of the last checkpoint, `None` if there is none."""
        checkpoint = get_last_checkpoint(str(self.checkpoints)) if self.checkpoints.is_dir() else None
        if checkpoint is not None:
            logger.warning(f"Going on from {checkpoint}.")
        return checkpoint

    def embeddings(self, router: ZooterForRouting, table: RewardTable, name: str, batch_size: int) -> torch.Tensor:
        """Computes the query embeddings of a table, or reads those that were computed before under this name.

        Returns:
            `torch.Tensor` of shape `(queries, hidden_size)`.
        """
        path = self.folder / f"{name}.safetensors"
        if path.is_file():
            return load_file(path)["embeddings"]
        embeddings = predict(
            router, table.queries, batch_size=batch_size, description=f"Embedding ({name})"
        ).embeddings
        partial = path.with_suffix(".partial")
        save_file({"embeddings": embeddings}, partial)
        partial.replace(path)
        return embeddings

    def remove(self):
        """Removes the folder: the run is finished."""
        shutil.rmtree(self.folder)


def fingerprint(table: RewardTable) -> str:
    """Returns a hash of what a router can learn from a table: queries, experts, rewards, tags and subsets."""
    digest = hashlib.sha256(json.dumps([expert.to_dict() for expert in table.experts]).encode())
    digest.update(table.rewards.numpy().tobytes())
    for query, tags, subset in zip(table.queries, table.tags, table.subsets, strict=True):
        digest.update(json.dumps([query, tags, subset]).encode())
    return digest.hexdigest()
