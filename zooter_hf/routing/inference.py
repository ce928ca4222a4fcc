"""What a router says of many queries at once, as tensors."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import logging

from zooter_hf.modeling import ZooterForRouting, ZooterRoutingPipeline


@dataclass(frozen=True)
class Predictions:
    """A router's outputs for many queries.

    Args:
        probabilities: Shape `(queries, experts)`, after the calibration temperature, float32.
        embeddings: The pooled query embeddings, shape `(queries, hidden_size)`, float32.
    """

    probabilities: torch.Tensor
    embeddings: torch.Tensor


def predict(
    router: ZooterForRouting, queries: Iterable[Any], *, batch_size: int = 32, description: str = "Routing"
) -> Predictions:
    """Runs a router over queries, batched by length, on the device it is on.

    Args:
        router: The router, with its tokenizer.
        queries: Strings or chats.
        batch_size: Queries in one forward pass.
        description: What the progress bar says.

    Raises:
        ValueError: If there is no query, one is empty, or the router has no tokenizer.
    """
    queries = list(queries)
    if not queries:
        raise ValueError("There are no queries.")
    training = router.training
    # A pipeline of its own: this one must not move the router to another device.
    route = ZooterRoutingPipeline(model=router.eval(), tokenizer=router.tokenizer, device=router.device)
    probabilities = torch.empty(len(queries), router.num_labels)
    embeddings = torch.empty(len(queries), router.config.hidden_size)
    try:
        with logging.tqdm(total=len(queries), desc=description, unit="query") as progress:
            for batch, outputs in route.iterate_batches(queries, batch_size):
                probabilities[batch] = outputs["probabilities"].float()
                embeddings[batch] = outputs["query_embedding"].float()
                progress.update(len(batch))
    finally:
        router.train(training)
    return Predictions(probabilities, embeddings)
