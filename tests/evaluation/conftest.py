"""A small table whose figures are worked out by hand in the tests."""

import pytest
import torch

from zooter_hf import RewardTable


ROWS = [
    # query, subset, rewards of a, b, c, probabilities of a, b, c
    ("q1", "s", (1.0, 0.0, 0.5), (0.62, 0.28, 0.10)),
    ("q2", "s", (0.0, 1.0, 0.5), (0.55, 0.35, 0.10)),
    ("q3", "s", (1.0, 1.0, 0.0), (0.20, 0.72, 0.08)),
    ("q4", "r", (0.0, 1.0, None), (0.18, 0.32, 0.50)),  # the first choice is missing: b it is
    ("q5", "r", (0.5, 0.0, 1.0), (0.10, 0.05, 0.85)),
    ("q6", "r", (None, 0.5, 0.5), (0.50, 0.18, 0.32)),  # and here c
]


def table_of(rewards, experts="abc", subsets=None, queries=None, costs=None) -> RewardTable:
    """Makes a table of lists of rewards."""
    rows = []
    for index, of_query in enumerate(rewards):
        row = {
            "query": queries[index] if queries else f"query {index}",
            "rewards": dict(zip(experts, of_query, strict=True)),
        }
        if subsets:
            row["subset"] = subsets[index]
        if costs:
            row["costs"] = dict(zip(experts, costs[index], strict=True))
        rows.append(row)
    return RewardTable.from_rows(rows)


@pytest.fixture(scope="session")
def small_table():
    """Six queries in two subsets, two missing rewards, three ties; a costs 1, b 2, c 3 thousandths."""
    costs = [[0.001, 0.002, None if query == "q5" else 0.003] for query, *_ in ROWS]
    return table_of(
        [rewards for _, _, rewards, _ in ROWS],
        subsets=[subset for _, subset, _, _ in ROWS],
        queries=[query for query, *_ in ROWS],
        costs=costs,
    )


@pytest.fixture(scope="session")
def small_probabilities():
    return torch.tensor([probabilities for *_, probabilities in ROWS], dtype=torch.float64)
