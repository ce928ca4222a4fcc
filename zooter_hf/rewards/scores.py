"""What choosing an expert is worth, by a table of rewards."""

import torch


def routed_rewards(rewards: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Takes the reward of the chosen expert of every query.

    Args:
        rewards: Shape `(queries, experts)`, NaN where a reward is missing.
        chosen: Indices of shape `(queries,)`.

    Returns:
        `torch.Tensor` of shape `(queries,)`: NaN where the reward of the chosen expert is missing.
    """
    return rewards.gather(1, chosen.unsqueeze(1)).squeeze(1)


def oracle_rewards(rewards: torch.Tensor) -> torch.Tensor:
    """Takes the best known reward of every query: `(queries, experts)` to `(queries,)`, NaN where none is known."""
    best = rewards.nan_to_num(-torch.inf).amax(dim=1)
    return best.masked_fill(rewards.isnan().all(dim=1), torch.nan)


def regret(rewards: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Computes how much is lost against the best known expert of every query.

    Args:
        rewards: Shape `(queries, experts)`, NaN where a reward is missing.
        scores: The router's logits or probabilities, of the same shape. An expert whose reward is missing is not
            chosen: what it would have given is not known.

    Returns:
        `torch.Tensor` of shape `(queries,)`: 0 or more, NaN where no reward is known.
    """
    chosen = scores.masked_fill(rewards.isnan(), -torch.inf).argmax(dim=1)
    return oracle_rewards(rewards) - routed_rewards(rewards, chosen)


def mean_known(rewards: torch.Tensor) -> torch.Tensor:
    """Averages the known rewards of every expert: `(queries, experts)` to `(experts,)`, NaN for one without any."""
    return rewards.nanmean(dim=0)
