"""What a routing is worth, and how far its probabilities can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zooter_hf.modeling import routing_loss
from zooter_hf.rewards.scores import oracle_rewards, routed_rewards


# Means of the same rewards in another order differ by rounding: that is not a better model.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class ReliabilityBin:
    """Queries whose routing had about the same confidence.

    Args:
        low: Lower end of the bin, included.
        high: Upper end, included only in the last bin.
        queries: How many there are.
        confidence: Mean probability of the routed expert; `None` in an empty bin.
        accuracy: Mean chance that the routed expert is the best one; `None` in an empty bin.
    """

    low: float
    high: float
    queries: int
    confidence: float | None
    accuracy: float | None


def group_by_subset(subsets: Sequence[str | None]) -> dict[str, torch.Tensor]:
    """Returns the rows of every subset, by its name in alphabetical order; queries without one are left out."""
    members: dict[str, list[int]] = {}
    for index, name in enumerate(subsets):
        if name is not None:
            members.setdefault(name, []).append(index)
    return {name: torch.tensor(members[name]) for name in sorted(members)}


def subset_means(values: torch.Tensor, groups: Sequence[torch.Tensor]) -> torch.Tensor:
    """Averages known values within groups of queries.

    Args:
        values: Shape `(queries, columns)`, NaN where a value is not known.
        groups: The rows of every group.

    Returns:
        `torch.Tensor` of shape `(groups, columns)`: NaN where a group knows no value.
    """
    return torch.stack([values[rows].nanmean(dim=0) for rows in groups])


def average_over(values: torch.Tensor, groups: Sequence[torch.Tensor]) -> torch.Tensor:
    """Averages the means of groups of queries, each group counting the same: `(queries, columns)` to `(columns,)`.

    With one group of all queries it is the mean over queries.
    """
    return subset_means(values, groups).nanmean(dim=0)


def choose_known(scores: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """Chooses the expert with the highest score among those whose reward is known.

    Args:
        scores: Shape `(queries, experts)`, NaN for an expert that must not be chosen.
        rewards: Of the same shape, NaN where a reward is missing: what the expert would have given is not known.

    Returns:
        Indices of shape `(queries,)`; 0 where no expert can be chosen, which [`known_choice_rewards`] marks.
    """
    return scores.masked_fill(scores.isnan() | rewards.isnan(), -torch.inf).argmax(dim=1)


def known_choice_rewards(scores: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """Takes the rewards of the experts that [`choose_known`] chooses: `(queries,)`, NaN where there is none."""
    chosen = routed_rewards(rewards, choose_known(scores, rewards))
    return chosen.masked_fill((scores.isnan() | rewards.isnan()).all(dim=1), torch.nan)


def best_experts(rewards: torch.Tensor) -> torch.Tensor:
    """Marks the best known experts of every query: booleans of shape `(queries, experts)`, several where they tie."""
    return rewards == oracle_rewards(rewards).unsqueeze(1)  # false where a reward is NaN


def known_probabilities(probabilities: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """Restricts a router's probabilities to the experts whose reward is known, and brings them back to a sum of 1.

    Args:
        probabilities: Shape `(queries, experts)`.
        rewards: Of the same shape, NaN where a reward is missing.
    """
    known = probabilities.masked_fill(rewards.isnan(), 0.0)
    return known / known.sum(dim=1, keepdim=True).clamp(min=torch.finfo(known.dtype).tiny)


def top1_agreement(rewards: torch.Tensor, chosen: torch.Tensor) -> float:
    """Computes the share of the queries whose routed expert is among the best known ones.

    Args:
        rewards: Shape `(queries, experts)`, NaN where a reward is missing.
        chosen: Indices of shape `(queries,)`.
    """
    return best_experts(rewards).gather(1, chosen.unsqueeze(1)).double().mean().item()


def kl_to_router(targets: torch.Tensor, probabilities: torch.Tensor, known: torch.Tensor | None = None) -> float:
    """Computes the mean of `KL(target || router)` over the queries, in nats: what training minimises.

    Args:
        targets: Target distributions of shape `(queries, experts)`.
        probabilities: The router's, of the same shape.
        known: False where a reward is missing, of the same shape; both distributions are restricted to the known
            experts, as in training.
    """
    if known is not None:
        targets = targets.masked_fill(~known, 0.0)
        targets = targets / targets.sum(dim=1, keepdim=True).clamp(min=torch.finfo(targets.dtype).tiny)
        known = known & (targets.sum(dim=1, keepdim=True) > 0)  # nothing is asked of the router there
    # A probability that was rounded to 0 costs much, but not infinitely much.
    logits = probabilities.float().clamp(min=torch.finfo(torch.float32).tiny).log()
    return routing_loss(logits, targets.float(), known).item()


def reliability(
    probabilities: torch.Tensor, rewards: torch.Tensor, chosen: torch.Tensor, bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Compares the confidence of a router with how often it is right.

    The confidence of a query is the probability of its routed expert, among the experts whose reward is known. The
    outcome is the chance that this expert is the best one when ties are broken at random: one over the number of the
    best known experts if it is one of them, 0 otherwise.

    Args:
        probabilities: Shape `(queries, experts)`.
        rewards: Of the same shape, NaN where a reward is missing.
        chosen: Indices of the routed experts, shape `(queries,)`.
        bins: How many bins of equal width there are between 0 and 1.
    """
    confidence = known_probabilities(probabilities, rewards).gather(1, chosen.unsqueeze(1)).squeeze(1)
    best = best_experts(rewards)
    outcome = best.gather(1, chosen.unsqueeze(1)).squeeze(1) / best.sum(dim=1)
    place = (confidence * bins).long().clamp(max=bins - 1)
    result = []
    for index in range(bins):
        inside = place == index
        filled = bool(inside.any())
        result.append(
            ReliabilityBin(
                low=index / bins,
                high=(index + 1) / bins,
                queries=int(inside.sum()),
                confidence=confidence[inside].mean().item() if filled else None,
                accuracy=outcome[inside].mean().item() if filled else None,
            )
        )
    return tuple(result)


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Averages the distance between confidence and accuracy over the queries, bin by bin."""
    gaps = sum(each.queries * abs(each.confidence - each.accuracy) for each in bins if each.queries)
    return gaps / sum(each.queries for each in bins)


def expert_share(chosen: torch.Tensor, experts: int) -> torch.Tensor:
    """Counts how often every expert is chosen, as shares: indices of shape `(queries,)` to `(experts,)`."""
    return chosen.bincount(minlength=experts).double() / len(chosen)


def best_share(rewards: torch.Tensor) -> torch.Tensor:
    """Counts how often every expert is best, as shares; queries with several best ones are divided among them."""
    best = best_experts(rewards)
    return (best / best.sum(dim=1, keepdim=True)).mean(dim=0)


def mean_task_rank(scores: torch.Tensor, singles: torch.Tensor) -> float:
    """Computes MTR, the mean rank of a model among itself and all single models (section 4.1 of the paper).

    Its rank on a subset is 1 plus the number of single models that are strictly better there.

    Args:
        scores: The model's score on every subset, shape `(subsets,)`. Subsets where it is NaN are left out.
        singles: The scores of the single models, shape `(subsets, experts)`; NaN is better than nothing.

    Returns:
        From 1, the best, to the number of experts plus 1; NaN without any subset.
    """
    ranks = 1 + (singles > scores.unsqueeze(1) + TOLERANCE).sum(dim=1).double()
    return ranks[~scores.isnan()].mean().item()


def uplift(scores: torch.Tensor, singles: torch.Tensor) -> float:
    """Computes %Uplift, the share of the subsets on which a model achieves the best performance (section 4.1).

    Args:
        scores: The model's score on every subset, shape `(subsets,)`. Subsets where it is NaN are left out.
        singles: The scores of the single models, shape `(subsets, experts)`.

    Returns:
        From 0 to 1: the share on which no single model is better; NaN without any subset.
    """
    first = ~(singles > scores.unsqueeze(1) + TOLERANCE).any(dim=1)
    return first[~scores.isnan()].double().mean().item()
