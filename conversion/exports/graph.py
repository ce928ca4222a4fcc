"""A router as a graph of tensors: what the exporters of torch see."""

import copy

import torch
from torch import nn

from zooter_hf.modeling import ZooterForRouting


class RouterGraph(nn.Module):
    """`(input_ids, attention_mask)` to a tuple of tensors that `output_names` names."""

    def __init__(self, router: ZooterForRouting):
        super().__init__()
        self.router = router

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Runs the router on tokens of shape `(batch, tokens)`."""
        outputs = self.router(input_ids=input_ids, attention_mask=attention_mask)
        values = [outputs.logits, outputs.query_embedding]
        if self.router.config.predict_rewards:
            values.append(outputs.predicted_rewards)
        if self.router.config.centroids:
            values.append(self.router.centroids.clone())
        return tuple(values)


def output_names(router: ZooterForRouting) -> list[str]:
    """Names what the graph gives: `logits`, `query_embedding`, perhaps `predicted_rewards` and `centroids`."""
    names = ["logits", "query_embedding"]
    if router.config.predict_rewards:
        names.append("predicted_rewards")
    if router.config.centroids:
        names.append("centroids")  # a constant, so that who has the graph needs no other file
    return names


class HeadGraph(nn.Module):
    """`query_embedding` to a tuple of `logits` and perhaps `predicted_rewards`: for embeddings that are known."""

    def __init__(self, router: ZooterForRouting):
        super().__init__()
        self.router = router

    def forward(self, query_embedding: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Runs the heads on embeddings of shape `(batch, hidden_size)`."""
        outputs = self.router(query_embedding=query_embedding)
        return (outputs.logits,) if outputs.predicted_rewards is None else (outputs.logits, outputs.predicted_rewards)


def plain_copy(router: ZooterForRouting) -> ZooterForRouting:
    """Copies a router, in single precision, on the CPU, with attention written out."""
    router = copy.deepcopy(router).float().cpu().eval()
    # Fused attention would be taken apart again, with guards against rows without a token that no query has.
    if router.encoder.config._attn_implementation != "eager":
        router.set_attn_implementation("eager")
    return router


def example_inputs(router: ZooterForRouting) -> tuple[tuple[torch.Tensor, torch.Tensor], dict]:
    """Returns tokens to trace a graph with, and which of their sizes are free."""
    input_ids = torch.full((2, 9), router.tokenizer.pad_token_id or 0)
    input_ids[0] = torch.arange(9) % router.config.encoder_config.vocab_size
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 6:] = 0
    sizes = {
        0: torch.export.Dim("batch", min=1),
        1: torch.export.Dim("tokens", min=1, max=router.config.max_encoder_tokens),
    }
    return (input_ids, attention_mask), {"input_ids": sizes, "attention_mask": dict(sizes)}
