"""What every choice of the default recipe is worth: one setting changed at a time, on both sets of training data.

    python -m benchmarks.ablation --encoder MINILM [--only llmrouter] [--by subset] [--match beta] [--trained-encoder]

Every variant is cross-validated (five folds, the same for all) with each seed. A score is the mean reward of the
routed expert, in percent, as mean and standard deviation over the seeds: on RouterDC the mean over its five training
benchmarks, on LLMRouter over the queries. The difference to the default is paired over the queries, averaged over the
seeds, with a 95 % bootstrap interval. With `--by subset` whole subsets are held out: what a choice is worth on kinds
of queries that were not trained on. Variants that train the encoder take minutes a run; they are asked for with
--trained-encoder, and are then compared on one fold with one seed, on the first and last 64 tokens of a query.
"""

import argparse
import statistics
from functools import cached_property
from typing import Any

import numpy as np
import torch

from benchmarks.llmrouter import RECIPE
from benchmarks.routerdc import NOT_TRAINED_ON
from benchmarks.routing import Recipe, new_router, quiet, train
from zooter_hf import DistillationArguments, RewardTable
from zooter_hf.conversion.reward_tables import load
from zooter_hf.distillation import cross_validate
from zooter_hf.evaluation.bootstrap import compare
from zooter_hf.evaluation.metrics import group_by_subset
from zooter_hf.rewards import ClusterTagger
from zooter_hf.rewards.scores import routed_rewards
from zooter_hf.routing import predict


FOLDS = 5
PAPER_TARGETS = {"tau": 1.0, "beta": 0.3, "average": "probabilities", "standardize": False, "neighbours": 0}
VARIANTS: dict[str, dict[str, Any]] = {
    "the paper's targets (tau 1 on raw rewards, beta 0.3, probabilities averaged)": PAPER_TARGETS,
    "beta 0 (tags alone)": {"beta": 0.0},
    "beta 0.05": {"beta": 0.05},
    "beta 0.2": {"beta": 0.2},
    "beta 0.3": {"beta": 0.3},
    "beta 1 (no enhancement)": {"beta": 1.0},
    "tau 0.1": {"tau": 0.1},
    "tau 0.5": {"tau": 0.5},
    "tau 1": {"tau": 1.0},
    'tau "auto"': {"tau": "auto"},
    "probabilities averaged over a tag": {"average": "probabilities"},
    "50 neighbours beside the tags, weight 0.25": {"neighbours": 50, "neighbour_weight": 0.25},
    "50 neighbours beside the tags, weight 0.5": {"neighbours": 50, "neighbour_weight": 0.5},
    "leave-one-out tag means": {"leave_one_out": True},
    "clusters for tags: 20": {"tags": 20},
    "clusters for tags: 50": {"tags": 50},
    "per-expert rewards by binary cross-entropy": {"objective": "bce"},
    "per-expert rewards by squared error": {"objective": "mse"},
    "hard labels (cross-entropy)": {"objective": "cross_entropy"},
    "subsets balanced": {"balance_subsets": True},
    "linear head": {"head": "linear"},
}
TRAINED = {
    "frozen encoder": {},
    "LoRA, rank 8": {"freeze_encoder": False, "lora_r": 8, "num_train_epochs": 2},
    "whole encoder": {"freeze_encoder": False, "num_train_epochs": 2},
}


def vary(changes: dict[str, Any]) -> tuple[Recipe, int | None]:
    """Makes a recipe of the default one and changes; `tags` asks for clusters in their place."""
    changes = dict(changes)
    clusters = changes.pop("tags", None)
    config = {key: changes.pop(key) for key in ("head", "head_dropout") if key in changes}
    if config.get("head") == "linear":
        config["head_hidden_size"] = None
    return Recipe({**RECIPE.arguments, **changes}, {**RECIPE.config, **config}), clusters


class Data:
    """A reward table with what all variants share."""

    def __init__(self, name: str, table: RewardTable, average: str, encoder: str):
        self.name, self.table, self.encoder = name, table, encoder
        self.groups = list(group_by_subset(table.subsets).values()) if average == "subsets" else None

    @cached_property
    def embeddings(self) -> torch.Tensor:
        """The query embeddings, shape `(queries, hidden_size)`."""
        router = new_router(self.table, self.encoder, RECIPE, seed=0)
        return predict(router, self.table.queries, description=self.name).embeddings

    def route(self, recipe: Recipe, seed: int, table: RewardTable, by: str) -> torch.Tensor:
        """Cross-validates a recipe; returns the reward of the routed expert of every query."""
        args = DistillationArguments(
            "unused",
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **recipe.arguments,
        )
        probabilities = cross_validate(
            table,
            lambda: new_router(table, self.encoder, recipe, seed),
            args,
            folds=FOLDS,
            by=by,
            embeddings=self.embeddings,
        )
        return routed_rewards(table.rewards, probabilities.argmax(dim=1))

    def score(self, rewards: torch.Tensor) -> float:
        """Averages rewards of queries, in percent."""
        if self.groups is None:
            return 100 * rewards.mean().item()
        return 100 * statistics.fmean(rewards[rows].mean().item() for rows in self.groups)


def main():
    """Prints the table, a line when it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routerdc", default="../shared/data/routerdc_train", help="folder of the RouterDC data")
    parser.add_argument("--llmrouter", default="../shared/data/llmrouter_train", help="folder of the LLMRouter data")
    parser.add_argument("--encoder", required=True, help="folder or Hub id of the encoder")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (default: %(default)s)")
    parser.add_argument("--only", choices=("routerdc", "llmrouter"), help="one of the two")
    parser.add_argument("--by", choices=("row", "subset"), default="row", help="what is held out (%(default)s)")
    parser.add_argument("--match", default="", help="variants whose name holds this; all by default")
    parser.add_argument("--trained-encoder", action="store_true", help="compare frozen, LoRA and whole, on one fold")
    arguments = parser.parse_args()
    quiet()
    sets = []
    if arguments.only != "llmrouter":
        table = load(arguments.routerdc, "routerdc")
        table = table.select_subsets(sorted(set(table.subsets) - NOT_TRAINED_ON))
        sets.append(Data("RouterDC", table, "subsets", arguments.encoder))
    if arguments.only != "routerdc":
        sets.append(Data("LLMRouter", load(arguments.llmrouter, "llmrouter"), "queries", arguments.encoder))
    for data in sets:
        print(f"\n| {data.name} | score | against the default |\n|---|---:|---:|", flush=True)
        if arguments.trained_encoder:
            compare_training(data)
        else:
            compare_variants(data, arguments.seeds, arguments.by, arguments.match)


def compare_variants(data: Data, seeds: int, by: str, match: str):
    """Cross-validates the default and every variant of it."""
    single = max(data.score(of_expert) for of_expert in data.table.rewards.unbind(dim=1))
    print(f"| best single model | {single:.2f} | |", flush=True)
    default = None
    chosen = {name: changes for name, changes in VARIANTS.items() if match in name}
    for name, changes in {"**default**": {}, **chosen}.items():
        recipe, clusters = vary(changes)
        table = data.table
        if clusters:
            table = table.with_tags(ClusterTagger(clusters)(data.embeddings.numpy()))
        runs = torch.stack([data.route(recipe, seed, table, by) for seed in range(seeds)])
        scores = [data.score(run) for run in runs]
        default = runs.mean(dim=0) if default is None else default
        spread = f" ± {statistics.stdev(scores):.2f}" if seeds > 1 else ""
        print(
            f"| {name} | {statistics.fmean(scores):.2f}{spread} | {against(data, runs.mean(0), default)} |", flush=True
        )


def compare_training(data: Data, fold: int = 0):
    """Trains head, adapters or the whole encoder without one fold, and routes that."""
    fold_of = data.table.folds(FOLDS, 0)
    rest, held_out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
    training, test = data.table.select(rest), data.table.select(held_out)
    if data.groups is not None:
        data.groups = list(group_by_subset(test.subsets).values())
    default = None
    for name, changes in TRAINED.items():
        recipe, _ = vary(changes)
        recipe = Recipe(recipe.arguments, {**recipe.config, "max_query_tokens": 128})
        router = train(new_router(training, data.encoder, recipe, seed=0), training, recipe, seed=0)
        routed = routed_rewards(test.rewards, predict(router, test.queries).probabilities.argmax(dim=1))
        default = routed if default is None else default
        print(f"| {name} | {data.score(routed):.2f} | {against(data, routed, default)} |", flush=True)


def against(data: Data, rewards: torch.Tensor, default: torch.Tensor) -> str:
    """Writes a paired difference with its interval."""
    if rewards is default or torch.equal(rewards, default):
        return "0"
    comparison = compare(rewards, default, data.groups)
    return f"{100 * comparison.difference:+.2f} ({100 * comparison.low:+.2f} to {100 * comparison.high:+.2f})"


if __name__ == "__main__":
    main()
