"""Evaluates a router on a reward table."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from zooter_hf.evaluation import baselines, metrics
from zooter_hf.evaluation.baselines import require_sklearn
from zooter_hf.evaluation.bootstrap import bootstrap_means, compare, percentile_intervals
from zooter_hf.evaluation.inputs import (
    check_distributions,
    check_embeddings,
    check_settings,
    gather,
)
from zooter_hf.evaluation.metrics import average_over, group_by_subset, subset_means
from zooter_hf.evaluation.report import EvaluationReport, Row
from zooter_hf.modeling import ZooterForRouting
from zooter_hf.rewards import RewardTable
from zooter_hf.rewards.checks import check_experts
from zooter_hf.routing import Predictions, predict


COMPARED = ("best_single", "training_best_single", "knn", "kmeans", "reward_model_ranking")


def evaluate(
    router: ZooterForRouting,
    table: RewardTable,
    *,
    training_table: RewardTable | None = None,
    true_rewards: RewardTable | None = None,
    targets: torch.Tensor | None = None,
    average: Literal["queries", "subsets"] = "queries",
    neighbours: int = 50,
    clusters: int = 20,
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
    batch_size: int = 32,
    name: str | None = None,
    dataset: str | None = None,
    predictions: Predictions | None = None,
) -> EvaluationReport:
    """Evaluates a router on a reward table, against single models, chance, the oracle and untrained routing.

    Args:
        router: The router, with its tokenizer.
        table: The rewards, of the router's experts in its order.
        training_table: What the router was trained on: adds the best single model of training, nearest neighbours
            and clusters, on the router's own query embeddings. Needs scikit-learn.
        true_rewards: True scores of the same queries, where those of `table` are a reward model's: everything is
            scored by them, and ranking the answers by the reward model (RMR) is one more baseline. Queries that only
            one table has are left out.
        targets: Target distributions of the queries of `table`, shape `(queries, experts)`, for the KL divergence.
        average: Whether scores are means over queries, or means of the subsets' means, as papers report them.
        neighbours: How many training queries the nearest-neighbour baseline averages.
        clusters: How many clusters the k-means baseline makes.
        confidence: Share of the resampled scores that an interval holds.
        samples: How many resamples there are.
        seed: Which ones, and where k-means starts.
        batch_size: Queries in one forward pass.
        name: Name of the router. By default what its training recorded, or "router".
        dataset: Name of the table.
        predictions: What the router says of the queries of `table`, if that is known already.

    Returns:
        [`EvaluationReport`]: Scores with intervals, subsets, comparisons, calibration, shares and costs.

    Raises:
        ValueError: If the tables do not have the router's experts in its order, or do not fit each other; before the
            router runs.
        ImportError: If there is a training table and scikit-learn is not installed.

    Example:
    ```python
    >>> from transformers import AutoModel
    >>> from zooter_hf import DEFAULT_ROUTER, RewardTable, evaluate

    >>> table = RewardTable.load("rewards.jsonl")  # doctest: +SKIP
    >>> report = evaluate(AutoModel.from_pretrained(DEFAULT_ROUTER), table)  # doctest: +SKIP
    >>> report.save("report")  # doctest: +SKIP

    ```
    """
    settings = {
        "training_table": training_table, "targets": targets, "average": average, "neighbours": neighbours,
        "clusters": clusters, "confidence": confidence, "samples": samples,
    }  # fmt: skip
    remedy = "`table.select_experts(router.expert_names)`"
    check_experts("The router", router.expert_names, "the table", table.expert_names, remedy)
    check_settings(table, **settings)
    gather(table, true_rewards, average)  # for its errors, which come before the router runs
    if training_table is not None:
        require_sklearn()
    if predictions is None:
        predictions = predict(router, table.queries, batch_size=batch_size)
    training_embeddings = None
    if training_table is not None:
        training_embeddings = predict(
            router, training_table.queries, batch_size=batch_size, description="Embedding training queries"
        ).embeddings
    return evaluate_probabilities(
        predictions.probabilities,
        table,
        embeddings=predictions.embeddings,
        training_embeddings=training_embeddings,
        true_rewards=true_rewards,
        seed=seed,
        name=name or (router.config.training or {}).get("name"),
        dataset=dataset,
        **settings,
    )


def evaluate_probabilities(
    probabilities: torch.Tensor,
    table: RewardTable,
    *,
    embeddings: torch.Tensor | None = None,
    training_table: RewardTable | None = None,
    training_embeddings: torch.Tensor | None = None,
    true_rewards: RewardTable | None = None,
    targets: torch.Tensor | None = None,
    average: Literal["queries", "subsets"] = "queries",
    neighbours: int = 50,
    clusters: int = 20,
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
    name: str | None = None,
    dataset: str | None = None,
) -> EvaluationReport:
    """Evaluates a router's probabilities, however they were made; see [`evaluate`].

    Args:
        probabilities: Shape `(queries, experts)`: rows that sum to 1, in the order of the table.
        table: The rewards.
        embeddings: Of the queries, shape `(queries, hidden_size)`, for nearest neighbours and clusters.
        training_table: What the router was trained on.
        training_embeddings: Of its queries, shape `(training queries, hidden_size)`. Without embeddings the best
            single model of training is all that a training table adds.
        true_rewards: True scores of the same queries.
        targets: Target distributions, shape `(queries, experts)`.
        average: Whether scores are means over queries or over subsets.
        neighbours: How many training queries the nearest-neighbour baseline averages.
        clusters: How many clusters the k-means baseline makes.
        confidence: Share of the resampled scores that an interval holds.
        samples: How many resamples there are.
        seed: Which ones, and where k-means starts.
        name: Name of the router.
        dataset: Name of the table.

    Raises:
        ValueError: If the probabilities are none, or shapes, experts or queries do not fit each other.
        ImportError: If there is a training table with embeddings and scikit-learn is not installed.
    """
    check_settings(
        table,
        training_table=training_table,
        targets=targets,
        average=average,
        neighbours=neighbours,
        clusters=clusters,
        confidence=confidence,
        samples=samples,
    )
    probabilities = check_distributions("probabilities", probabilities, table)
    both_embeddings = check_embeddings(embeddings, table, training_embeddings, training_table)
    inputs = gather(table, true_rewards, average)
    names, rewards, costs = table.expert_names, inputs.rewards, inputs.costs
    probabilities = probabilities[inputs.rows]
    by_subset = group_by_subset(inputs.subsets)
    groups = _groups(by_subset, len(rewards), average)

    router = baselines.routed("router", name or "router", probabilities, rewards, costs)
    outcomes = [router, baselines.best_single_model(names, rewards, groups, costs)]
    if training_table is not None:
        training_rewards = training_table.rewards
        training_subsets = training_table.subsets
        training_groups = _groups(
            group_by_subset(training_subsets),
            len(training_table),
            "queries" if None in training_subsets else average,
        )
        outcomes.append(baselines.training_best_single_model(names, rewards, training_rewards, training_groups, costs))
        if both_embeddings is not None:
            data = (both_embeddings[0][inputs.rows], both_embeddings[1], training_rewards)
            for kind, label, scores in (
                ("knn", f"nearest neighbours ({neighbours})", baselines.knn_scores(*data, neighbours)),
                ("kmeans", f"clusters ({clusters})", baselines.kmeans_scores(*data, clusters, seed)),
            ):
                outcomes.append(baselines.routed(kind, label, scores, rewards, costs))
    if true_rewards is not None:
        outcomes.append(baselines.reward_model_ranking(inputs.teacher, rewards, costs))
    outcomes.append(baselines.random_expert(rewards, costs))
    if by_subset:
        outcomes.append(baselines.best_per_subset(rewards, list(by_subset.values()), costs))
    oracle = baselines.oracle(rewards, costs)
    outcomes.append(oracle)
    singles = baselines.single_models(names, rewards, costs)

    chosen = metrics.choose_known(probabilities, rewards)
    bins = metrics.reliability(probabilities, rewards, chosen)
    return EvaluationReport(
        router=router.name,
        dataset=dataset or "reward table",
        queries=len(rewards),
        experts=tuple(names),
        average=average,
        percent=bool(((rewards >= 0) & (rewards <= 1) | rewards.isnan()).all()),
        true_rewards=true_rewards is not None,
        rows=_rows(outcomes, singles, groups, by_subset, confidence, samples, seed),
        subsets={subset: len(rows) for subset, rows in by_subset.items()},
        comparisons=tuple(
            compare(
                router.rewards,
                outcome.rewards,
                groups,
                confidence=confidence,
                samples=samples,
                seed=seed,
                baseline=outcome.kind,
                name=outcome.name,
            )
            for outcome in outcomes
            if outcome.kind in COMPARED and not (router.rewards - outcome.rewards).isnan().all()
        ),
        regret=average_over((oracle.rewards - router.rewards).unsqueeze(1), groups).item(),
        top1_agreement=metrics.top1_agreement(rewards, chosen),
        # Targets are made of the table's own rewards: those say which experts are in them.
        kl=None
        if targets is None
        else metrics.kl_to_router(targets.cpu()[inputs.rows], probabilities, ~inputs.teacher.isnan()),
        ece=metrics.expected_calibration_error(bins),
        reliability=bins,
        routed_share=dict(zip(names, metrics.expert_share(chosen, len(names)).tolist(), strict=True)),
        best_share=dict(zip(names, metrics.best_share(rewards).tolist(), strict=True)),
        rerouted=int((chosen != probabilities.argmax(dim=1)).sum()),
        confidence=confidence,
        samples=samples,
        seed=seed,
    )


def _groups(by_subset: dict[str, torch.Tensor], queries: int, average: str) -> list[torch.Tensor]:
    return list(by_subset.values()) if average == "subsets" else [torch.arange(queries)]


def _rows(
    outcomes: Sequence[baselines.Outcome],
    singles: Sequence[baselines.Outcome],
    groups: Sequence[torch.Tensor],
    by_subset: dict[str, torch.Tensor],
    confidence: float,
    samples: int,
    seed: int,
) -> tuple[Row, ...]:
    """Scores every outcome: overall with its interval, and on every subset against the single models."""
    every = [*outcomes, *singles]
    values = torch.stack([outcome.rewards for outcome in every], dim=1)
    scores = average_over(values, groups)
    means = bootstrap_means(values, groups, samples=samples, seed=seed)
    low, high = percentile_intervals(means, confidence)
    subset_scores = subset_means(values, list(by_subset.values())) if by_subset else values.new_empty(0, len(every))
    of_singles = subset_scores[:, len(outcomes) :]
    return tuple(
        Row(
            kind=outcome.kind,
            name=outcome.name,
            score=_number(scores[index]),
            low=_number(low[index]),
            high=_number(high[index]),
            standard_error=_number(np.nanstd(means[:, index])) if not np.isnan(low[index]) else None,
            subsets={name: _number(score) for name, score in zip(by_subset, subset_scores[:, index], strict=True)},
            mean_task_rank=_number(metrics.mean_task_rank(subset_scores[:, index], of_singles)),
            uplift=_number(metrics.uplift(subset_scores[:, index], of_singles)),
            cost=None if outcome.costs is None else _number(outcome.costs.nanmean()),
            expert=outcome.expert,
        )
        for index, outcome in enumerate(every)
    )


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
