"""Reward tables that a tiny router can learn: what a query begins with says who is good at it."""

import pytest

from zooter_hf import RewardTable


TOPICS = {
    "math": ("Prove that the square root of {} is irrational.", [1.0, 0.2, 0.1]),
    "code": ("Write a function that sorts a list of {}.", [0.1, 0.9, 0.3]),
    "chat": ("Explain in one paragraph why the sky is {}.", [0.3, 0.0, 0.8]),
}
WORDS = ["two", "red", "blue", "day", "night", "moon", "novel", "list"]


def make_rows(experts, copies=8, scale=1.0):
    for word in WORDS[:copies]:
        for topic, (text, rewards) in TOPICS.items():
            yield {
                "query": text.format(word),
                "rewards": dict(zip(experts, [scale * reward for reward in rewards], strict=True)),
                "tags": [topic],
                "subset": topic,
            }


@pytest.fixture
def table():
    return RewardTable.from_rows(make_rows(["math-7b", "code-9b", "chat-70b"]))
