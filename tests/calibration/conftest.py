"""A router on random embeddings, and rewards that are drawn from what it says."""

import pytest
import torch

from zooter_hf import RewardTable
from zooter_hf.routing import predict_embedded


class World:
    """Queries whose best expert is drawn with the probabilities of a router's logits, changed in a known way.

    Args:
        make_router: Makes a random router.
        queries: How many.
        change: What makes of the logits those that the best expert is drawn with.
        seed: Of the queries, and of what is drawn.
        fields: Of the router's config.
    """

    def __init__(self, make_router, queries=1500, change=lambda logits: logits, seed=1, **fields):
        self.router = make_router(head="linear", **fields)
        torch.manual_seed(seed)  # after the router, which is made from a seed of its own
        self.embeddings = torch.randn(queries, self.router.config.hidden_size)
        logits = predict_embedded(self.router, self.embeddings).logits
        self.router.classifier.out_proj.weight.data *= 2.0 / logits.std()
        self.logits = predict_embedded(self.router, self.embeddings).logits
        best = torch.distributions.Categorical(logits=change(self.logits)).sample()
        rewards = torch.nn.functional.one_hot(best, self.logits.shape[1]).double()
        self.table = self.make_table(rewards)

    def make_table(self, rewards, names=None, tags=None):
        names = names or self.router.expert_names
        return RewardTable.from_rows(
            {
                "query": f"What is the {word_of(row)}?",
                "rewards": dict(zip(names, (None if value != value else value for value in values), strict=True)),
                "tags": tags[row] if tags else [],
            }
            for row, values in enumerate(rewards.tolist())
        )


def word_of(number):
    """Queries that differ in digits alone would be kept together."""
    letters = ""
    while True:
        number, rest = divmod(number, 26)
        letters = chr(97 + rest) + letters
        if not number:
            return letters


@pytest.fixture(scope="package")
def make_world(make_router):
    return lambda **arguments: World(make_router, **arguments)
