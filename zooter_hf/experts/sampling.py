"""Sampling that depends on the seed and the query alone, not on what else is in the batch."""

import hashlib
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from zooter_hf.experts.base import GenerationSettings


class SeededSampling(LogitsProcessor):
    """Leaves of every row's scores the one token that was drawn; the most likely token is then that token.

    Every row has its own random numbers, one a step, drawn before the first; the step takes the token in whose part of
    the cumulated probabilities the number lies. Batches differ in the last bits of their scores, so that a number on
    the very edge of a part may still fall to either side.

    Args:
        prompts: Token ids of the rows, without padding.
        settings: Temperature, top p, seed and number of tokens.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], settings: GenerationSettings):
        self.longest = max(len(ids) for ids in prompts)
        self.warpers = [TemperatureLogitsWarper(float(settings.temperature))]
        if settings.top_p < 1:
            self.warpers.append(TopPLogitsWarper(float(settings.top_p)))
        self.numbers = torch.stack(
            [
                torch.rand(
                    settings.max_new_tokens,
                    generator=torch.Generator().manual_seed(_seed(settings.seed, ids)),
                    dtype=torch.float64,
                )
                for ids in prompts
            ]
        )

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Draws the next tokens.

        Args:
            input_ids: Shape `(rows, tokens)`.
            scores: Shape `(rows, vocabulary)`.

        Returns:
            Shape `(rows, vocabulary)`: 0 for the token that was drawn, minus infinity for the others.
        """
        for warper in self.warpers:
            scores = warper(input_ids, scores)
        dtype = torch.float32 if scores.device.type == "mps" else torch.float64  # Apple's has no doubles
        cumulated = scores.to(dtype).softmax(-1).cumsum(-1)
        numbers = self.numbers[:, input_ids.shape[1] - self.longest, None].to(scores.device, dtype)
        drawn = torch.searchsorted(cumulated, numbers * cumulated[:, -1:], right=True)
        drawn = drawn.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)


def _seed(seed: int, ids: Sequence[int]) -> int:
    digest = hashlib.sha256(repr((seed, list(ids))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
