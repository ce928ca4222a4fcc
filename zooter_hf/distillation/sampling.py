"""Which queries a step sees."""

from collections import Counter
from collections.abc import Iterator, Sequence

import torch


class BalancedSampler(torch.utils.data.Sampler[int]):
    """Draws queries with replacement, so that every subset is seen equally often.

    Args:
        subsets: The subset of every query.
        seed: Which are drawn. Every epoch draws others, and a run that is resumed in it draws the same again.
    """

    def __init__(self, subsets: Sequence[str], seed: int):
        counts = Counter(subsets)
        self.weights = torch.tensor([1 / counts[subset] for subset in subsets], dtype=torch.float64)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Says which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        yield from torch.multinomial(self.weights, len(self), replacement=True, generator=generator).tolist()
