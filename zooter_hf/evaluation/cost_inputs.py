"""Checks what is to be compared by cost, before long work begins, and keeps the queries where something is known."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zooter_hf.evaluation.metrics import TOLERANCE


@dataclass(frozen=True)
class CostInputs:
    """The queries that methods are compared on: those with an expert whose reward and cost are known.

    Args:
        names: The experts.
        methods: Scores of shape `(queries, experts)` by the name of a method, NaN for "not to be chosen".
        rewards: Of the same shape, NaN where the reward or the cost is missing.
        costs: US dollars, likewise.
        expected_costs: US dollars, of the same shape, all known.
        pair: The columns of the strong and of the weak model, if a pair is compared.
    """

    names: tuple[str, ...]
    methods: dict[str, torch.Tensor]
    rewards: torch.Tensor
    costs: torch.Tensor
    expected_costs: torch.Tensor
    pair: tuple[int, int] | None


def gather_costs(
    methods: Mapping[str, Any],
    rewards: Any,
    costs: Any,
    expected_costs: Any,
    names: Sequence[str],
    strong: str | None,
    weak: str | None,
) -> CostInputs:
    """Checks values, shapes and names, and brings all to float64 on the CPU.

    Raises:
        ValueError: If there are no costs or methods, values are out of range, or shapes or names do not fit.
    """
    if costs is None:
        raise ValueError("There are no costs: a reward table needs the column `costs`, in US dollars by expert.")
    rewards, costs, expected_costs = (_tensor(each) for each in (rewards, costs, expected_costs))
    _check_shapes(rewards, costs, expected_costs, names)
    expected_costs = expected_costs.expand_as(rewards)
    _check_dollars("costs", costs, (costs < 0) | costs.isinf(), names)
    wrong = ~((expected_costs >= 0) & expected_costs.isfinite())
    _check_dollars("expected_costs", expected_costs, wrong, names, ", and known for every expert")
    known = ~(rewards.isnan() | costs.isnan())
    rows = known.any(dim=1)
    if not rows.any():
        raise ValueError("There is no query on which the reward and the cost of an expert are both known.")
    checked = {name: _check_scores(name, scores, known) for name, scores in methods.items()}
    if not checked:
        raise ValueError("There is no method: give scores of shape (queries, experts) by the name of a method.")
    rewards, costs = (each.masked_fill(~known, torch.nan)[rows] for each in (rewards, costs))
    return CostInputs(
        names=tuple(names),
        methods={name: scores[rows] for name, scores in checked.items()},
        rewards=rewards,
        costs=costs,
        expected_costs=expected_costs[rows],
        pair=_check_pair(strong, weak, rewards, list(names)),
    )


def check_cost_settings(
    qualities: Sequence[float], budgets: Sequence[float], points: int, confidence: float, samples: int
):
    """Raises `ValueError` if a setting is out of range."""
    for name, shares, whole in (("qualities", qualities, "reward"), ("budgets", budgets, "cost")):
        if not all(0 < share < math.inf for share in shares):
            raise ValueError(f"`{name}` are positive shares of the best single model's {whole}, got {list(shares)}.")
    if points < 2:
        raise ValueError(f"`points` must be at least 2, the ends of a curve, got {points}.")
    if samples < 1:
        raise ValueError(f"`samples` must be positive, got {samples}.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, got {confidence}.")


def _tensor(values: Any) -> torch.Tensor:
    return torch.as_tensor(values).detach().cpu().double()


def _check_shapes(rewards: torch.Tensor, costs: torch.Tensor, expected_costs: torch.Tensor, names: Sequence[str]):
    shape = tuple(rewards.shape)
    if len(shape) != 2 or tuple(costs.shape) != shape:
        raise ValueError(
            f"`rewards` and `costs` must have the same shape (queries, experts), got {shape} and {tuple(costs.shape)}."
        )
    if tuple(expected_costs.shape) not in (shape, shape[1:]):
        raise ValueError(
            f"`expected_costs` must have the shape (queries, experts) = {shape} or (experts,) = {shape[1:]}, got "
            f"{tuple(expected_costs.shape)}."
        )
    if len(names) != shape[1] or len(set(names)) != shape[1]:
        raise ValueError(f"The {shape[1]} experts must have one name each, got {list(names)}.")


def _check_dollars(name: str, values: torch.Tensor, wrong: torch.Tensor, names: Sequence[str], more: str = ""):
    if wrong.any():
        query, expert = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"`{name}` must be US dollars, 0 or more{more}: that of {names[expert]!r} for query {query} is "
            f"{values[query, expert].item()}."
        )


def _check_scores(name: str, scores: Any, known: torch.Tensor) -> torch.Tensor:
    scores = _tensor(scores)
    if scores.shape != known.shape:
        raise ValueError(
            f"The scores of {name!r} must have the shape (queries, experts) = {tuple(known.shape)}, got "
            f"{tuple(scores.shape)}."
        )
    if scores.isinf().any():
        raise ValueError(f"The scores of {name!r} are infinite somewhere. Give NaN where none must be chosen.")
    without = (known.any(dim=1) & ~(known & ~scores.isnan()).any(dim=1)).nonzero().flatten().tolist()
    if without:
        raise ValueError(
            f"The scores of {name!r} leave no expert to query {without[0]}: they are NaN for all whose reward and "
            "cost are known. Methods are compared on the same queries."
        )
    return scores


def _check_pair(strong: str | None, weak: str | None, rewards: torch.Tensor, names: list[str]):
    if strong is None and weak is None:
        return None
    for role, name in (("strong", strong), ("weak", weak)):
        if name not in names:
            raise ValueError(f"`{role}` must be one of the experts {names}, got {name!r}.")
    columns = names.index(strong), names.index(weak)
    gap = (rewards[:, columns[0]] - rewards[:, columns[1]]).nanmean().item()
    if not gap > TOLERANCE:
        raise ValueError(
            f"The strong model must be better than the weak one, and the mean reward of {strong!r} less that of "
            f"{weak!r} is {gap:.4g}. Choose another pair."
        )
    return columns
