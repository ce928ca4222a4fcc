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
    kind: str = "complement",
    margin: float | None = None,
    correct_above: float = 0.5,
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
        seed: Of what breaks ties.
        batch_size: Queries in one forward pass.
        settings: Further settings of [`~zooter_hf.routing.SetPolicy`]: `abstain`, `aggregation`, `default`, ...

    Raises:
        ValueError: If the table has other experts, too few queries for what is promised, or a value is out of its
            range; before the router runs.
    """
    check_experts("The router", router.expert_names, "the table", table.expert_names, REMEDY)
    if len(table) < (needed := queries_needed(alpha, delta)):
        raise ValueError(f"{len(table)} calibration queries are too few for alpha {alpha:g}: it takes {needed}.")
    policy = SetPolicy(alpha=alpha, delta=delta, kind=kind, margin=margin, seed=seed, **settings)
    kept = router.config.kept_experts
    queries = list(table.queries)
    scores = set_scores(predict(router, queries, batch_size=batch_size, description="Calibrating"))[:, kept]
    names = [router.expert_names[index] for index in kept]
    found = calibrate_threshold(
        scores,
        table.rewards[:, kept],
        alpha=alpha,
        kind=kind,
        margin=margin,
        correct_above=correct_above,
        delta=delta,
        noise=named_noise([query_key(query) for query in queries], names, seed),
    )
    return policy.changed({"threshold": found.threshold})


def set_scores(predictions: Predictions) -> torch.Tensor:
    """Returns how likely every expert is good, `(queries, experts)`, as [`SetPolicy`] reads it of a ranking."""
    rewards = predictions.predicted_rewards
    return predictions.probabilities if rewards is None else rewards.clamp(0.0, 1.0)
