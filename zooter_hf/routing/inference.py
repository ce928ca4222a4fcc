"""What a router says of many queries at once, as tensors."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import logging

from zooter_hf.modeling import ZooterForRouting, ZooterRoutingPipeline


@dataclass(frozen=True)
class Predictions:
    """A router's outputs for many queries, in float32 on the CPU.

    Args:
        probabilities: Shape `(queries, experts)`, after calibration; 0 for experts that have been removed.
        embeddings: The pooled query embeddings, shape `(queries, hidden_size)`.
        logits: Shape `(queries, experts)`, before calibration.
        predicted_rewards: Shape `(queries, experts)`; `None` for a router that does not predict rewards.
        distances: To the nearest centroid of the training queries, shape `(queries,)`; `None` for a router without.
        tokens: The length of every query in the router's tokens, shape `(queries,)`; `None` where only embeddings were
            known.
    """

    probabilities: torch.Tensor
    embeddings: torch.Tensor
    logits: torch.Tensor
    predicted_rewards: torch.Tensor | None = None
    distances: torch.Tensor | None = None
    tokens: torch.Tensor | None = None


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
    embeddings = torch.empty(len(queries), router.config.hidden_size)
    tokens = torch.empty(len(queries), dtype=torch.long)
    try:
        with logging.tqdm(total=len(queries), desc=description, unit="query") as progress:
            for batch, outputs in route.iterate_batches(queries, batch_size):
                embeddings[batch] = outputs["query_embedding"].float()
                tokens[batch] = torch.tensor(outputs["query_tokens"])
                progress.update(len(batch))
    finally:
        router.train(training)
    return predict_embedded(router, embeddings, tokens)


@torch.inference_mode()
def predict_embedded(
    router: ZooterForRouting, embeddings: torch.Tensor, tokens: torch.Tensor | None = None
) -> Predictions:
    """Runs the heads of a router over queries whose embeddings are known.

    Args:
        router: The router.
        embeddings: Shape `(queries, hidden_size)`, of the router's own encoder.
        tokens: The length of every query, to be passed on.
    """
    training = router.training
    try:
        given = embeddings.to(router.device, router.dtype)
        outputs = router.eval()(query_embedding=given)
    finally:
        router.train(training)
    rewards = outputs.predicted_rewards
    return Predictions(
        probabilities=router.probabilities(outputs.logits).cpu(),
        embeddings=embeddings.float().cpu(),
        logits=outputs.logits.float().cpu(),
        predicted_rewards=None if rewards is None else rewards.float().cpu(),
        distances=router.nearest_centroids(given)[0].cpu() if router.config.centroids else None,
        tokens=tokens,
    )
