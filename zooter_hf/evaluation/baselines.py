"""What a router is measured against: single models, chance, the oracle, and routing without training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zooter_hf.evaluation.metrics import (
    average_over,
    best_experts,
    choose_known,
    known_choice_rewards,
    subset_means,
)
from zooter_hf.rewards.scores import mean_known, oracle_rewards, routed_rewards


@dataclass(frozen=True)
class Outcome:
    """What a way of answering every query gives.

    Args:
        kind: Which way it is: `"router"`, `"expert"`, `"best_single"`, `"oracle"`, ...
        name: What it is called in tables.
        rewards: Shape `(queries,)`, NaN where not known.
        costs: US dollars, of the same shape, NaN where not known; `None` if no costs are known.
        expert: The expert, of a way that always takes the same one.
    """

    kind: str
    name: str
    rewards: torch.Tensor
    costs: torch.Tensor | None = None
    expert: str | None = None


def routed(
    kind: str, name: str, scores: torch.Tensor, rewards: torch.Tensor, costs: torch.Tensor | None = None
) -> Outcome:
    """Takes the expert with the highest score of every query, among those whose reward is known.

    Args:
        kind: Kind of the outcome.
        name: Its name.
        scores: Shape `(queries, experts)`, or `(experts,)` for all queries alike; NaN for "not to be chosen".
        rewards: Shape `(queries, experts)`, NaN where a reward is missing.
        costs: US dollars, of the same shape.
    """
    scores = scores.expand_as(rewards)
    values = known_choice_rewards(scores, rewards)
    if costs is not None:
        costs = routed_rewards(costs, choose_known(scores, rewards)).masked_fill(values.isnan(), torch.nan)
    return Outcome(kind, name, values, costs)


def single_models(
    expert_names: Sequence[str], rewards: torch.Tensor, costs: torch.Tensor | None = None
) -> list[Outcome]:
    """Takes the same expert for every query, for each expert; queries where its reward is missing are not known."""
    return [
        Outcome("expert", name, rewards[:, index], None if costs is None else costs[:, index], expert=name)
        for index, name in enumerate(expert_names)
    ]


def best_single_model(
    expert_names: Sequence[str],
    rewards: torch.Tensor,
    groups: Sequence[torch.Tensor],
    costs: torch.Tensor | None = None,
) -> Outcome:
    """Takes the expert with the best score on the evaluated queries themselves.

    Which one that is, is known only afterwards: nobody could have chosen better among single models, which makes it
    the hardest of them to beat.

    Args:
        expert_names: The experts.
        rewards: Shape `(queries, experts)`, NaN where a reward is missing.
        groups: The rows of every group that the score averages over.
        costs: US dollars, of the shape of the rewards.
    """
    best = _best(average_over(rewards, groups))
    return Outcome(
        "best_single",
        f"best single model ({expert_names[best]})",
        rewards[:, best],
        None if costs is None else costs[:, best],
        expert=expert_names[best],
    )


def training_best_single_model(
    expert_names: Sequence[str],
    rewards: torch.Tensor,
    training_rewards: torch.Tensor,
    training_groups: Sequence[torch.Tensor],
    costs: torch.Tensor | None = None,
) -> Outcome:
    """Takes the expert with the best score on the training queries: the single model that one would have chosen."""
    best = _best(average_over(training_rewards, training_groups))
    return Outcome(
        "training_best_single",
        f"best single model in training ({expert_names[best]})",
        rewards[:, best],
        None if costs is None else costs[:, best],
        expert=expert_names[best],
    )


def random_expert(rewards: torch.Tensor, costs: torch.Tensor | None = None) -> Outcome:
    """Takes any expert whose reward is known, each with the same chance: what that gives on average."""
    costs = None if costs is None else costs.masked_fill(rewards.isnan(), torch.nan).nanmean(dim=1)
    return Outcome("random", "random expert", rewards.nanmean(dim=1), costs)


def best_per_subset(
    rewards: torch.Tensor, groups: Sequence[torch.Tensor], costs: torch.Tensor | None = None
) -> Outcome:
    """Takes the best expert of every subset, known beforehand: all that knowing the subset can give.

    Args:
        rewards: Shape `(queries, experts)`, NaN where a reward is missing; there the next best expert is taken.
        groups: The rows of every subset. Queries in none are not known.
        costs: US dollars, of the shape of the rewards.
    """
    scores = torch.full_like(rewards, torch.nan)
    for rows, means in zip(groups, subset_means(rewards, groups), strict=True):
        scores[rows] = means
    return routed("best_per_subset", "best expert per subset", scores, rewards, costs)


def oracle(rewards: torch.Tensor, costs: torch.Tensor | None = None) -> Outcome:
    """Takes the best known expert of every query, the cheapest of several: what a perfect router would reach."""
    if costs is not None:
        cheapest = costs.masked_fill(~best_experts(rewards) | costs.isnan(), torch.inf).amin(dim=1)
        costs = cheapest.masked_fill(cheapest.isinf(), torch.nan)
    return Outcome("oracle", "oracle", oracle_rewards(rewards), costs)


def reward_model_ranking(
    teacher_rewards: torch.Tensor, rewards: torch.Tensor, costs: torch.Tensor | None = None
) -> Outcome:
    """Keeps the answer that the reward model scores best (RMR, section 4.1 of the paper), by its true reward.

    Every expert has to answer, so that the cost of a query is the sum over all experts; it is known where all are.

    Args:
        teacher_rewards: What the reward model says, shape `(queries, experts)`, NaN where missing.
        rewards: The true rewards, of the same shape.
        costs: US dollars, of the same shape.
    """
    chosen = routed("reward_model_ranking", "reward model ranking", teacher_rewards, rewards)
    return Outcome(chosen.kind, chosen.name, chosen.rewards, None if costs is None else costs.sum(dim=1))


def knn_scores(
    embeddings: torch.Tensor, training_embeddings: torch.Tensor, training_rewards: torch.Tensor, neighbours: int = 50
) -> torch.Tensor:
    """Predicts rewards as the mean over the nearest training queries.

    Args:
        embeddings: Of the queries, shape `(queries, hidden_size)`; only their direction counts.
        training_embeddings: Of the training queries, shape `(training queries, hidden_size)`.
        training_rewards: Shape `(training queries, experts)`, NaN where a reward is missing.
        neighbours: How many are averaged; all training queries if there are fewer.

    Returns:
        `torch.Tensor` of shape `(queries, experts)`: Where no neighbour has a reward the mean of all training
        queries, NaN for an expert without any.
    """
    from sklearn.neighbors import NearestNeighbors

    neighbours = min(neighbours, len(training_embeddings))
    search = NearestNeighbors(n_neighbors=neighbours, metric="cosine").fit(training_embeddings.float().numpy())
    nearest = torch.from_numpy(search.kneighbors(embeddings.float().numpy(), return_distance=False))
    # In parts, since a query takes as much memory as its neighbours' rewards.
    means = torch.cat([training_rewards[part].nanmean(dim=1) for part in nearest.split(1024)])
    return torch.where(means.isnan(), mean_known(training_rewards), means)


def kmeans_scores(
    embeddings: torch.Tensor,
    training_embeddings: torch.Tensor,
    training_rewards: torch.Tensor,
    clusters: int = 20,
    seed: int = 0,
) -> torch.Tensor:
    """Predicts rewards as the mean over the training queries of the same cluster.

    Args:
        embeddings: Of the queries, shape `(queries, hidden_size)`; only their direction counts.
        training_embeddings: Of the training queries, shape `(training queries, hidden_size)`.
        training_rewards: Shape `(training queries, experts)`, NaN where a reward is missing.
        clusters: How many clusters k-means makes; fewer if there are fewer different embeddings.
        seed: Where k-means starts.

    Returns:
        `torch.Tensor` of shape `(queries, experts)`: Where a cluster has no reward the mean of all training queries,
        NaN for an expert without any.
    """
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize

    training = normalize(training_embeddings.float().numpy())
    clusters = min(clusters, len(np.unique(training, axis=0)))
    kmeans = KMeans(clusters, n_init=4, random_state=seed).fit(training)
    labels = torch.from_numpy(kmeans.labels_)
    overall = mean_known(training_rewards)
    means = subset_means(training_rewards, [torch.where(labels == cluster)[0] for cluster in range(clusters)])
    means = torch.where(means.isnan(), overall, means)
    return means[torch.from_numpy(kmeans.predict(normalize(embeddings.float().numpy()))).long()]


def require_sklearn():
    """Raises `ImportError`, with the remedy, if scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The baselines of a training table need scikit-learn: "
            'pip install "zooter-hf[evaluation]", or leave the training table out.'
        ) from error


def _best(means: torch.Tensor) -> int:
    return int(means.nan_to_num(nan=-torch.inf).argmax())
