"""What makes sure that a converted router computes what the checkpoint computes."""

from collections.abc import Callable

import torch
from transformers import PreTrainedTokenizerBase

from zooter_hf.modeling import ZooterForRouting


TOLERANCE = 1e-4
SENTENCES = (
    "Why?",
    "Prove that the square root of two is irrational.",
    "def total(prices):\n    return sum(prices)  # what does this do with an empty list?",
    "¿Por qué el cielo es azul de día y rojo por la tarde? 请用一句话解释。",
    "Summarise: the committee met on Tuesday, heard both sides at length, adjourned twice, and in the end put off the "
    "decision until the figures for the third quarter are in.",
)


@torch.inference_mode()
def run(
    tokenizer: PreTrainedTokenizerBase, forward: Callable[..., torch.Tensor], max_tokens: int | None = None
) -> torch.Tensor:
    """Runs a model on the built-in sentences, one at a time, so that padding has no part in it.

    Args:
        tokenizer: The checkpoint's own.
        forward: Takes `input_ids` and `attention_mask` of shape `(1, tokens)`, returns logits of shape `(1, labels)`.
        max_tokens: What the encoder can take.

    Returns:
        `torch.Tensor`: Logits of shape `(sentences, labels)`, float32.
    """
    rows = []
    for sentence in SENTENCES:
        inputs = tokenizer(sentence, truncation=max_tokens is not None, max_length=max_tokens, return_tensors="pt")
        rows.append(forward(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).float())
    return torch.cat(rows)


def refuse_differences(router: ZooterForRouting, expected: torch.Tensor, source: str):
    """Compares a router with the checkpoint that it was made of.

    Args:
        router: In evaluation mode, with its tokenizer.
        expected: The checkpoint's logits for the built-in sentences, of shape `(sentences, experts)`.
        source: What was converted, for the message.

    Raises:
        ValueError: If logits differ by more than `TOLERANCE`.
    """
    actual = run(router.tokenizer, lambda **inputs: router(**inputs).logits, router.config.max_query_tokens)
    difference = (actual - expected).abs().max().item()
    if not difference <= TOLERANCE:  # also if it is not a number
        raise ValueError(
            f"{source} is not converted: on built-in sentences the router's logits differ from the checkpoint's by "
            f"{difference:.2g}, which is more than {TOLERANCE:g}."
        )
