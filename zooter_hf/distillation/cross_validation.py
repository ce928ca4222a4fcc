"""Cross-validation: every query is routed by a router that was trained without it."""

import copy
import tempfile
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from transformers import PrinterCallback, ProgressCallback, set_seed
from transformers.utils import logging

from zooter_hf.distillation.arguments import DistillationArguments
from zooter_hf.distillation.trainer import ZooterTrainer
from zooter_hf.modeling import ZooterForRouting
from zooter_hf.rewards import RewardTable
from zooter_hf.routing import predict, predict_embedded


def cross_validate(
    table: RewardTable,
    make_router: Callable[[], ZooterForRouting],
    args: DistillationArguments,
    *,
    folds: int = 5,
    fold_seed: int = 0,
    by: Literal["row", "subset"] = "row",
    embeddings: torch.Tensor | None = None,
) -> torch.Tensor:
    """Routes every query of a table with a router that was trained without its fold.

    Args:
        table: The rewards.
        make_router: Makes an untrained router; called once a fold, after the seed of `args` is set.
        args: The settings of the training. Checkpoints are not kept.
        folds: How many folds.
        fold_seed: Which queries they hold.
        by: Whether rows of every subset are held out, or whole subsets; see [`RewardTable.folds`].
        embeddings: The query embeddings of the table, if they are known; see [`ZooterTrainer`].

    Returns:
        `torch.Tensor` of shape `(queries, experts)`: Probabilities.
    """
    fold_of = table.folds(folds, fold_seed, by=by)
    probabilities = torch.empty(len(table), len(table.experts))
    for fold in logging.tqdm(range(folds), desc="Cross-validation", unit="fold"):
        rest, held_out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        set_seed(args.seed)
        router = make_router()
        with tempfile.TemporaryDirectory() as folder:
            settings = copy.copy(args)
            settings.output_dir = folder
            trainer = ZooterTrainer(
                router, settings, table.select(rest), embeddings=None if embeddings is None else embeddings[rest]
            )
            trainer.remove_callback(PrinterCallback)  # there is a progress bar over the folds
            trainer.remove_callback(ProgressCallback)
            trainer.train()
            router = trainer.finish()
        if args.freeze_encoder and embeddings is not None:
            probabilities[held_out] = route_embeddings(router, embeddings[held_out])
        else:
            queries = table.select(held_out).queries
            probabilities[held_out] = predict(
                router, queries, batch_size=args.per_device_eval_batch_size
            ).probabilities
    return probabilities


def route_embeddings(router: ZooterForRouting, embeddings: torch.Tensor) -> torch.Tensor:
    """Returns the probabilities of queries whose embeddings are known, `(queries, experts)`, on the CPU."""
    return predict_embedded(router, embeddings).probabilities
