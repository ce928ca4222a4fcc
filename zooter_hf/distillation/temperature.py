"""`tau="auto"`: the temperature of the targets, chosen by what it is worth on queries held out."""

import torch
from transformers.utils import logging

from zooter_hf.distillation.arguments import DistillationArguments
from zooter_hf.distillation.labels import make_labels
from zooter_hf.modeling import routing_loss
from zooter_hf.rewards import RewardTable
from zooter_hf.rewards.scores import oracle_rewards, regret


logger = logging.get_logger(__name__)

# In standard deviations of the rewards: from nearly hard labels to nearly flat ones.
CANDIDATES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


def fit_tau(
    table: RewardTable,
    embeddings: torch.Tensor,
    args: DistillationArguments,
    *,
    folds: int = 4,
    seed: int | None = None,
) -> float:
    """Chooses the temperature of the targets by cross-validation with a linear head.

    Of the candidates, six from a twentieth to twice the standard deviation of the rewards, those are kept whose mean
    reward lies within one standard error (paired over the queries) of the best; the largest of them is taken, as
    softer targets carry more of what the teacher said.

    Args:
        table: The training table.
        embeddings: Its query embeddings, shape `(queries, hidden_size)`.
        args: The other settings of the targets.
        folds: How many parts are held out, one after the other.
        seed: Which queries they hold; that of `args` by default.

    Returns:
        The temperature, for rewards as `args` has them (standardised or not).
    """
    rewards = table.rewards
    spread = 1.0 if args.standardize else rewards[~rewards.isnan()].std(correction=0).item()
    fold_of = torch.from_numpy(table.folds(folds, args.seed if seed is None else seed))
    features = torch.cat([_standardise_columns(embeddings), torch.ones(len(embeddings), 1)], dim=1)
    worth = torch.stack(
        [_held_out_rewards(table, embeddings, features, fold_of, args, candidate * spread) for candidate in CANDIDATES]
    )
    best = worth.nanmean(dim=1).argmax()
    behind = worth[best] - worth
    error = behind.square().nanmean(dim=1).sub(behind.nanmean(dim=1).square()).sqrt() / len(table) ** 0.5
    good = behind.nanmean(dim=1) <= error
    tau = max(candidate for candidate, keep in zip(CANDIDATES, good.tolist(), strict=True) if keep) * spread
    scores = ", ".join(
        f"{candidate * spread:.3g}: {score:.4g}"
        for candidate, score in zip(CANDIDATES, worth.nanmean(dim=1).tolist(), strict=True)
    )
    logger.info(f"tau = {tau:.3g}; mean reward of queries held out, by tau: {scores}.")
    return tau


def _held_out_rewards(table: RewardTable, embeddings, features, fold_of, args, tau: float) -> torch.Tensor:
    """Routes every query with a head that was fitted without its fold; returns what it earns, `(queries,)`."""
    rewards = table.rewards
    known = ~rewards.isnan()
    scores = torch.empty(rewards.shape)
    for fold in fold_of.unique():
        rest, held_out = torch.where(fold_of != fold)[0], fold_of == fold
        labels = make_labels(table.select(rest.tolist()), args, tau, rewards, embeddings[rest]).float()
        weights = _fit_linear(features[rest], labels, known[rest])
        scores[held_out] = features[held_out] @ weights
    return oracle_rewards(rewards) - regret(rewards, scores)


def _fit_linear(features: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Fits `softmax(features @ weights)` to soft labels by L-BFGS; a convex problem, so there is no seed."""
    weights = torch.zeros(features.shape[1], labels.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = routing_loss(features @ weights, labels, known) + 0.01 * weights[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def _standardise_columns(values: torch.Tensor) -> torch.Tensor:
    return (values - values.mean(dim=0)) / values.std(dim=0).clamp(min=1e-6)
