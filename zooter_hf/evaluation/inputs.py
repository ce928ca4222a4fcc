"""Checks what is to be evaluated, before long work begins, and brings tables of the same queries together."""

import json
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import logging

from zooter_hf.evaluation.baselines import require_sklearn
from zooter_hf.rewards import RewardTable
from zooter_hf.rewards.checks import check_experts


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Inputs:
    """The queries that are evaluated.

    Args:
        rows: Which rows of the table they are, shape `(queries,)`.
        teacher: Rewards of the table, shape `(queries, experts)`, NaN where missing.
        rewards: The rewards that count, of the same shape: true ones, or the table's.
        costs: US dollars, of the same shape, or `None`.
        subsets: The subset of every query, `None` for none.
    """

    rows: torch.Tensor
    teacher: torch.Tensor
    rewards: torch.Tensor
    costs: torch.Tensor | None
    subsets: list[str | None]


def check_settings(
    table: RewardTable,
    *,
    training_table: RewardTable | None,
    targets: torch.Tensor | None,
    average: str,
    **settings: Any,
):
    """Checks everything but what the router says.

    Raises:
        ValueError: If a setting is out of range, or experts or shapes do not fit the table.
    """
    if average not in ("queries", "subsets"):
        raise ValueError(f"`average` must be 'queries' or 'subsets', got {average!r}.")
    for name in ("neighbours", "clusters", "samples"):
        if settings[name] < 1:
            raise ValueError(f"`{name}` must be positive, got {settings[name]}.")
    if not 0 < settings["confidence"] < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, got {settings['confidence']}.")
    if training_table is not None:
        check_experts(
            "The table",
            table.expert_names,
            "the training table",
            training_table.expert_names,
            "`training_table.select_experts(table.expert_names)`",
        )
    if targets is not None:
        check_distributions("targets", targets, table, may_be_empty=True)


def gather(table: RewardTable, true_rewards: RewardTable | None = None, average: str = "queries") -> Inputs:
    """Reads the tables, and joins true rewards to the table on the query.

    Where both tables hold the same queries in the same order, their rows belong together one by one, so that queries
    may stand in them more than once.

    Raises:
        ValueError: If the tables have other experts or no query in common, a query stands twice in `true_rewards`, or
            an average over subsets meets a query without one.
    """
    rows = true_rows = torch.arange(len(table))
    if true_rewards is not None:
        check_experts(
            "The table",
            table.expert_names,
            "the table of true rewards",
            true_rewards.expert_names,
            "`true_rewards.select_experts(table.expert_names)`",
        )
        rows, true_rows = _join(table, true_rewards)
    costs, subsets = table.costs, table.subsets
    costs = None if costs is None else costs[rows]
    subsets = [subsets[row] for row in rows.tolist()]
    if true_rewards is not None:  # which may know what the table does not
        if costs is None and true_rewards.costs is not None:
            costs = true_rewards.costs[true_rows]
        theirs = true_rewards.subsets
        subsets = [mine or theirs[row] for mine, row in zip(subsets, true_rows.tolist(), strict=True)]
    if average == "subsets" and None in subsets:
        raise ValueError(
            f"An average over subsets needs the subset of every query, and {subsets.count(None)} of {len(subsets)} "
            "have none. Give them one, or average over queries."
        )
    teacher = table.rewards[rows]
    rewards = teacher if true_rewards is None else true_rewards.rewards[true_rows]
    return Inputs(rows, teacher, rewards, costs, subsets)


def check_distributions(
    name: str, values: torch.Tensor, table: RewardTable, may_be_empty: bool = False
) -> torch.Tensor:
    """Returns distributions as float64 on the CPU.

    Raises:
        ValueError: If the shape is not that of the rewards, or rows are negative or do not sum to 1 (or 0, where
            `may_be_empty`).
    """
    values = torch.as_tensor(values).detach().cpu().double()
    shape = (len(table), len(table.experts))
    if tuple(values.shape) != shape:
        raise ValueError(f"`{name}` must have the shape (queries, experts) = {shape}, got {tuple(values.shape)}.")
    sums = values.sum(dim=1)
    good = ((sums - 1).abs() < 1e-2) | (may_be_empty & (sums == 0))  # half precision rounds this much
    wrong = (~good | (values < 0).any(dim=1)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"`{name}` must be distributions over the experts, and row {wrong[0]} is {values[wrong[0]].tolist()}. Of "
            "logits, take the softmax first."
        )
    return values


def check_embeddings(
    embeddings: torch.Tensor | None,
    table: RewardTable,
    training_embeddings: torch.Tensor | None,
    training_table: RewardTable | None,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Returns the embeddings of queries and training queries, `None` if there are none.

    Raises:
        ValueError: If only one of them is given, or their shapes do not fit.
        ImportError: If they are given and scikit-learn, which they are for, is not installed.
    """
    if training_table is None or (embeddings is None and training_embeddings is None):
        return None
    if embeddings is None or training_embeddings is None:
        raise ValueError("Nearest neighbours and clusters need both `embeddings` and `training_embeddings`.")
    require_sklearn()
    both = [torch.as_tensor(each).detach().cpu().float() for each in (embeddings, training_embeddings)]
    for name, each, of in zip(("embeddings", "training_embeddings"), both, (table, training_table), strict=True):
        if each.ndim != 2 or len(each) != len(of):
            raise ValueError(f"`{name}` must have the shape ({len(of)}, hidden_size), got {tuple(each.shape)}.")
    if both[0].shape[1] != both[1].shape[1]:
        raise ValueError(f"The embeddings have different widths: {both[0].shape[1]} and {both[1].shape[1]}.")
    return both[0], both[1]


def _join(table: RewardTable, true_rewards: RewardTable) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the rows of both tables that belong together."""
    mine, theirs = _keys(table), _keys(true_rewards)
    if mine == theirs:
        return torch.arange(len(mine)), torch.arange(len(mine))
    place: dict[str, int] = {}
    for index, key in enumerate(theirs):
        if key in place:
            raise ValueError(
                f"A query stands twice in the table of true rewards, in rows {place[key] + 1} and {index + 1}: "
                f"{key[:80]!r}."
            )
        place[key] = index
    pairs = [(index, place[key]) for index, key in enumerate(mine) if key in place]
    if not pairs:
        raise ValueError(
            "The table and the table of true rewards have no query in common: they must be the same text, to the "
            "character."
        )
    if len(pairs) < len(mine):
        logger.warning(f"{len(mine) - len(pairs)} of {len(mine)} queries have no true rewards and are left out.")
    rows, true_rows = torch.tensor(pairs).unbind(dim=1)
    return rows, true_rows


def _keys(table: RewardTable) -> list[str]:
    return [json.dumps(query, sort_keys=True, ensure_ascii=False) for query in table.queries]
