"""Whether an export says what the router says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from zooter_hf.modeling import ZooterForRouting, ZooterRoutingPipeline


# Short and long, in several languages, with what tokenizers stumble over. For formats that are exact any text will do.
EXAMPLES = (
    "Why?",
    "Who wrote Middlemarch?",
    "What is 17 * 23?",
    "If $a + b = 7$ and $ab = 10$, what is $a^3 + b^3$?",
    "def fibonacci(n):\n    # complete this function, and say what it costs in time and space",
    "Warum ist der Himmel blau? \u4e3a\u4ec0\u4e48\u5929\u7a7a\u662f\u84dd\u8272\u7684\uff1f \U0001f914",
    "A train leaves at noon and runs 60 miles an hour. Another one leaves an hour later. When do they meet? " * 4,
    "Summarise what follows in one sentence. " + "It was the best of times, it was the worst of times. " * 40,
)
BATCH_SIZE = 16


@dataclass(frozen=True)
class ExportCheck:
    """How an export compares with its router.

    Args:
        format: Name of the format.
        queries: How many queries were compared.
        agreement: Share of the queries for which both choose the same expert.
        largest_difference: The largest difference of two probabilities.
        rechecked: Share of the queries that were close calls, and that the runtime asks the full-precision graph
            about; 0 for formats that do without.
    """

    format: str
    queries: int
    agreement: float
    largest_difference: float
    rechecked: float = 0.0

    def __str__(self) -> str:
        text = (
            f"{self.format}: the same expert for {self.agreement:.2%} of {self.queries:,} queries, largest difference "
            f"of a probability {self.largest_difference:.2g}"
        )
        return f"{text}, {self.rechecked:.1%} asked again in full precision" if self.rechecked else text

    def require(self, agreement: float, difference: float = 1.0) -> "ExportCheck":
        """Returns itself if it is as close as that.

        Raises:
            ValueError: If it is not.
        """
        if self.agreement < agreement or self.largest_difference > difference:
            raise ValueError(
                f"The export is too far from the router, and was not kept. {self}; the format allows {agreement:.2%} "
                f"and {difference:.2g}."
            )
        return self


def make_batches(router: ZooterForRouting, queries: Sequence[Any]) -> list[dict[str, torch.Tensor]]:
    """Tokenises queries as the pipeline does, into batches of similar length, the longest last.

    Returns:
        `list[dict]`: With `input_ids` and `attention_mask` of shape `(batch, tokens)`.
    """
    route = ZooterRoutingPipeline(model=router, tokenizer=router.tokenizer, device=router.device)
    tokens = sorted(map(torch.tensor, route.tokenize_queries(queries)), key=len)
    padding = router.tokenizer.pad_token_id or 0
    return [
        {
            "input_ids": pad_sequence(batch, batch_first=True, padding_value=padding),
            "attention_mask": pad_sequence([torch.ones_like(ids) for ids in batch], batch_first=True),
        }
        for start in range(0, len(tokens), BATCH_SIZE)
        for batch in [tokens[start : start + BATCH_SIZE]]
    ]


@torch.inference_mode()
def logits_of(run: Callable[..., torch.Tensor], batches: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Returns what `run(input_ids, attention_mask)` gives for all batches, shape `(queries, experts)`."""
    return torch.cat([run(batch["input_ids"], batch["attention_mask"]).float().cpu() for batch in batches])


def router_logits(router: ZooterForRouting) -> Callable[..., torch.Tensor]:
    """Returns a router as [`logits_of`] takes it."""

    def run(input_ids, attention_mask):
        inputs = {"input_ids": input_ids.to(router.device), "attention_mask": attention_mask.to(router.device)}
        return router(**inputs).logits

    return run


def compare(format: str, ours: torch.Tensor, theirs: torch.Tensor) -> ExportCheck:
    """Compares the probabilities of a router and of its export, of shape `(queries, experts)` each."""
    return ExportCheck(
        format,
        queries=len(ours),
        agreement=(ours.argmax(dim=-1) == theirs.argmax(dim=-1)).float().mean().item(),
        largest_difference=(ours - theirs).abs().max().item(),
    )
