"""Statistics of a reward table: who is good at what, and how much routing could gain."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from zooter_hf.rewards.scores import mean_known, oracle_rewards


@dataclass(frozen=True)
class GroupSummary:
    """Statistics of some queries: of all, of a subset or of a tag.

    Args:
        queries: How many there are.
        means: Mean of the known rewards of every expert; `None` for an expert without any.
        best_expert: The expert with the highest mean.
        best_mean: Its mean.
        oracle: Mean of the best known reward of every query: what a perfect router would reach.
        random: Mean over experts of their means: what a random choice reaches.
    """

    queries: int
    means: dict[str, float | None]
    best_expert: str
    best_mean: float
    oracle: float
    random: float

    @property
    def possible_gain(self) -> float:
        """What a perfect router would gain over the best expert of this group."""
        return self.oracle - self.best_mean


@dataclass(frozen=True)
class ExpertSummary:
    """Statistics of one expert.

    Args:
        mean: Mean of its known rewards.
        standard_deviation: Their standard deviation.
        missing: How many queries have no reward for it.
        best_share: Share of the queries on which it is best; queries with several best experts are divided among them.
        alone_best_share: Share of the queries on which it alone is best.
        mean_cost: Mean of its known costs in US dollars, if there are any.
    """

    mean: float | None
    standard_deviation: float | None
    missing: int
    best_share: float
    alone_best_share: float
    mean_cost: float | None = None


@dataclass(frozen=True)
class TableSummary:
    """Statistics of a reward table.

    Args:
        overall: Of all queries.
        experts: Of every expert.
        subsets: Of every subset, by name.
        tags: Of every tag, by name.
        untagged: How many queries have no tag.
    """

    overall: GroupSummary
    experts: dict[str, ExpertSummary]
    subsets: dict[str, GroupSummary] = field(default_factory=dict)
    tags: dict[str, GroupSummary] = field(default_factory=dict)
    untagged: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the statistics as JSON values."""
        return asdict(self)


def summarize(
    expert_names: Sequence[str],
    rewards: torch.Tensor,
    subsets: Sequence[str | None],
    tags: Sequence[Sequence[str]],
    costs: torch.Tensor | None = None,
) -> TableSummary:
    """Computes the statistics of a table.

    Args:
        expert_names: The experts.
        rewards: Shape `(queries, experts)`, NaN where a reward is missing.
        subsets: The subset of every query, `None` for none.
        tags: The tags of every query.
        costs: US dollars, of the shape of the rewards, NaN where not known.
    """
    known = ~rewards.isnan()
    best = (rewards == oracle_rewards(rewards).unsqueeze(1)) & known
    shares = (best / best.sum(dim=1, keepdim=True).clamp(min=1)).mean(dim=0)
    alone = (best & (best.sum(dim=1, keepdim=True) == 1)).double().mean(dim=0)
    means = mean_known(rewards)
    experts = {}
    for index, name in enumerate(expert_names):
        column = rewards[known[:, index], index]
        experts[name] = ExpertSummary(
            mean=_number(means[index]),
            standard_deviation=_number(column.std()) if len(column) > 1 else None,
            missing=int((~known[:, index]).sum()),
            best_share=float(shares[index]),
            alone_best_share=float(alone[index]),
            mean_cost=None if costs is None else _number(costs[:, index].nanmean()),
        )
    return TableSummary(
        overall=_group(expert_names, rewards),
        experts=experts,
        subsets=_groups(expert_names, rewards, [[] if name is None else [name] for name in subsets]),
        tags=_groups(expert_names, rewards, tags),
        untagged=sum(not of_query for of_query in tags),
    )


def _groups(
    expert_names: Sequence[str], rewards: torch.Tensor, names: Sequence[Sequence[str]]
) -> dict[str, GroupSummary]:
    members: dict[str, list[int]] = {}
    for index, of_query in enumerate(names):
        for name in of_query:
            members.setdefault(name, []).append(index)
    return {name: _group(expert_names, rewards[members[name]]) for name in sorted(members)}


def _group(expert_names: Sequence[str], rewards: torch.Tensor) -> GroupSummary:
    means = mean_known(rewards)
    best = int(means.nan_to_num(-torch.inf).argmax())
    return GroupSummary(
        queries=len(rewards),
        means={name: _number(mean) for name, mean in zip(expert_names, means, strict=True)},
        best_expert=expert_names[best],
        best_mean=float(means[best]),
        oracle=float(oracle_rewards(rewards).nanmean()),
        random=float(means.nanmean()),
    )


def _number(value: torch.Tensor) -> float | None:
    return None if value.isnan() else float(value)
