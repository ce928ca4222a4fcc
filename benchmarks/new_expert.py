"""Experts added to a trained router, against training all anew: leaving out each expert of the data in turn.

    python -m benchmarks.new_expert --data llmrouter --encoder MINILM

A router is trained without an expert, which is then added from so many rewards (`router.add_expert`), or from its mean
reward for every tag alone. Scores are mean rewards of the chosen expert on a fifth of the data that is held out.
"""

import copy
import statistics
import time

import numpy as np
import torch

from benchmarks.after_training import RECIPE, parse, read, show
from benchmarks.routing import HELD_OUT, SPLIT_SEED, new_router, train
from zooter_hf import ExpertSpec, RewardTable, ZooterForRouting
from zooter_hf.rewards.scores import routed_rewards
from zooter_hf.routing import predict_embedded


SIZES = (50, 100, 200, 500, 1000, 2000)


def main():
    """Runs the benchmark."""
    arguments = parse(__doc__, "new_expert", "llmrouter", seeds=2)
    table, of_all = read(arguments)
    fold = torch.from_numpy(table.folds(round(1 / HELD_OUT), SPLIT_SEED))
    training, test = (table.select(torch.where(rows)[0].tolist()) for rows in (fold != 0, fold == 0))
    embeddings, of_test = of_all[fold != 0], of_all[fold == 0]
    names, rewards = table.expert_names, test.rewards
    whole = [
        score(
            train(new_router(training, arguments.encoder, RECIPE, seed), training, RECIPE, seed, embeddings),
            of_test,
            rewards,
        )
        for seed in range(arguments.seeds)
    ]
    rows, seconds = [], []
    for name in names:
        rest = [other for other in names if other != name]
        order = [names.index(other) for other in (*rest, name)]
        joined = training.select_experts([*rest, name])
        old_table = training.select_experts(rest)
        scores: dict[str, list[float]] = {}
        for seed in range(arguments.seeds):
            old = train(new_router(old_table, arguments.encoder, RECIPE, seed), old_table, RECIPE, seed, embeddings)
            scores.setdefault("without", []).append(score(old, of_test, rewards[:, order[:-1]]))
            draws = np.random.default_rng(seed).permutation(len(training))
            for size in SIZES:
                chosen = draws[:size].tolist()
                began = time.perf_counter()
                router = add(old, name, joined.select(chosen), embeddings[chosen])
                seconds.append(time.perf_counter() - began)
                scores.setdefault(str(size), []).append(score(router, of_test, rewards[:, order]))
            means = tag_means(joined, name)
            router = add(old, name, old_table, embeddings, tag_rewards=means)
            scores.setdefault("tag means", []).append(score(router, of_test, rewards[:, order]))
        rows.append((name, {key: statistics.fmean(values) for key, values in scores.items()}))
    show(render(rows, statistics.fmean(whole), max(seconds)), arguments, "new_expert")


def add(
    old: ZooterForRouting, name: str, table: RewardTable, embeddings: torch.Tensor, **settings
) -> ZooterForRouting:
    """Adds an expert to a copy of a router."""
    router = copy.deepcopy(old)
    router.config.training = {"tau": 0.25, "beta": 0.1}
    router.add_expert(ExpertSpec(name), table, embeddings=embeddings, **settings)
    return router


def tag_means(table: RewardTable, name: str) -> dict[str, float]:
    """Averages the rewards of an expert over the queries of every tag."""
    column = table.rewards[:, table.expert_names.index(name)].tolist()
    of_tag: dict[str, list[float]] = {}
    for tags, reward in zip(table.tags, column, strict=True):
        for tag in tags:
            of_tag.setdefault(tag, []).append(reward)
    return {tag: statistics.fmean(values) for tag, values in of_tag.items()}


def score(router: ZooterForRouting, embeddings: torch.Tensor, rewards: torch.Tensor) -> float:
    """Returns the mean reward of the chosen expert, in percent."""
    chosen = predict_embedded(router, embeddings).probabilities.argmax(dim=1)
    return 100 * routed_rewards(rewards, chosen).mean().item()


def render(rows: list[tuple[str, dict[str, float]]], whole: float, seconds: float) -> str:
    """Makes the table."""
    columns = list(rows[0][1])
    lines = [
        "| expert left out | " + " | ".join(columns) + " | trained anew |",
        "|---|" + "---:|" * (len(columns) + 1),
        *(
            f"| {name} | " + " | ".join(f"{scores[column]:.2f}" for column in columns) + f" | {whole:.2f} |"
            for name, scores in rows
        ),
        "| mean | "
        + " | ".join(f"{statistics.fmean(scores[column] for _, scores in rows):.2f}" for column in columns)
        + f" | {whole:.2f} |",
        "",
        f"Adding one took {seconds:.1f} s at most, with the embeddings of its queries at hand.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
