"""Sets of experts with a guarantee, from rewards."""

from typing import Any

import torch

from zooter_hf.calibration.probabilities import REMEDY
from zooter_hf.modeling import ZooterForRouting
from zooter_hf.rewards import RewardTable
from zooter_hf.rewards.checks import check_experts
from zooter_hf.routing import Predictions, SetPolicy, predict, query_key
from zooter_hf.routing.conformal import calibrate_threshold, queries_needed
from zooter_hf.routing.policies.conformal_set import named_noise


def calibrate_sets(
    router: ZooterForRouting,
    table: RewardTable,
    *,
    alpha: float = 0.1,
    delta: float | None = None,
    kind: str = "gain",
    margin: float | None = None,
    correct_above: float = 0.5,
    by_tag: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    **settings: Any,
) -> SetPolicy:
    """Makes a policy whose sets hold a good expert of all but `alpha` of the queries (RACER, arXiv 2603.06616).

    How good experts seem is what the router predicts of their rewards, as shares of 1, or else their probabilities.

    Args:
        router: The router, with its tokenizer. It does not change.
        table: Rewards of its experts, on queries that it was not trained on and that are like those to come.
        alpha: How often a set may hold no good expert.
        delta: How often the calibration itself may fail; by default the promise is one on average.
        kind: `"gap"`, `"complement"` or `"gain"`; see [`~zooter_hf.routing.nonconformity.nonconformity`].
        margin: What is good: experts within it of the best reward; by default those that are correct.
        correct_above: The reward above which an expert is correct.
        by_tag: Whether queries are also calibrated by the tag of the training queries nearest to them, so that the
            promise holds for easy and hard kinds alike, and not on average over them; needs `store_centroids`. Tags
            with too few queries for it share one threshold.
        seed: Of what breaks ties.
        batch_size: Queries in one forward pass.
        settings: Further settings of [`~zooter_hf.routing.SetPolicy`]: `abstain`, `aggregation`, `default`, ...

    Raises:
        ValueError: If the table has other experts, too few queries for what is promised, a value is out of its range,
            or the router has no centroids to tell tags by; before the router runs.
    """
    check_experts("The router", router.expert_names, "the table", table.expert_names, REMEDY)
    if len(table) < (needed := queries_needed(alpha, delta)):
        raise ValueError(f"{len(table)} calibration queries are too few for alpha {alpha:g}: it takes {needed}.")
    policy = SetPolicy(alpha=alpha, delta=delta, kind=kind, margin=margin, seed=seed, **settings)
    if by_tag and not router.config.centroids:
        raise ValueError("`by_tag` needs the centroids of the training: `store_centroids(router, training_table)`.")
    kept = router.config.kept_experts
    queries = list(table.queries)
    predictions = predict(router, queries, batch_size=batch_size, description="Calibrating")
    scores, rewards = set_scores(predictions)[:, kept], table.rewards[:, kept]
    names = [router.expert_names[index] for index in kept]
    noise = named_noise([query_key(query) for query in queries], names, seed)

    def find(rows: torch.Tensor) -> float:
        return calibrate_threshold(
            scores[rows],
            rewards[rows],
            alpha=alpha,
            kind=kind,
            margin=margin,
            correct_above=correct_above,
            delta=delta,
            noise=noise[rows],
        ).threshold

    thresholds = {"threshold": find(torch.arange(len(queries)))}
    if by_tag:
        near = _nearest_tags(router, predictions.embeddings)
        known = ~rewards.isnan().all(dim=1)
        of_tag = {tag: torch.tensor([tag == each for each in near]) & known for tag in sorted(set(near))}
        enough = {tag: rows for tag, rows in of_tag.items() if tag and int(rows.sum()) >= needed}
        thresholds["group_thresholds"] = {tag: find(torch.where(rows)[0]) for tag, rows in enough.items()}
        rest = known & ~torch.stack([torch.zeros_like(known), *enough.values()]).any(dim=0)
        if int(rest.sum()) >= needed:  # what is left has a threshold of its own, too
            thresholds["threshold"] = find(torch.where(rest)[0])
    return policy.changed(thresholds)


def _nearest_tags(router: ZooterForRouting, embeddings: torch.Tensor) -> list[str]:
    """Returns the first tag of the centroid nearest to every query; empty for one without."""
    index = router.nearest_centroids(embeddings.to(router.device, router.dtype))[1]
    tags = [(each.get("tags") or [""])[0] for each in router.config.centroids]
    return [tags[place] for place in index.tolist()]


def set_scores(predictions: Predictions) -> torch.Tensor:
    """Returns how likely every expert is good, `(queries, experts)`, as [`SetPolicy`] reads it of a ranking."""
    rewards = predictions.predicted_rewards
    return predictions.probabilities if rewards is None else rewards.clamp(0.0, 1.0)
