"""What the routing benchmarks share: train a router per seed, evaluate it, and show mean and spread over the seeds."""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, set_seed
from transformers.utils import logging

from zooter_hf import DistillationArguments, EvaluationReport, RewardTable, ZooterForRouting, ZooterTrainer
from zooter_hf.distillation.cross_validation import route_embeddings
from zooter_hf.evaluation import evaluate_probabilities
from zooter_hf.routing import predict


HELD_OUT = 0.2
SPLIT_SEED = 0
HEAD = {"head": "mlp", "head_hidden_size": 256, "head_dropout": 0.2}
BASELINES = ("best_single", "training_best_single", "random", "knn", "kmeans", "best_per_subset", "oracle")


@dataclass(frozen=True)
class Recipe:
    """How a router is trained.

    Args:
        arguments: Of [`DistillationArguments`].
        config: Of [`ZooterConfig`].
    """

    arguments: dict[str, Any]
    config: dict[str, Any] = field(default_factory=lambda: dict(HEAD))


@dataclass(frozen=True)
class Part:
    """A part of the test data that is averaged for itself.

    Args:
        name: What it is called.
        table: The queries.
        published: Figures to compare with, in percent.
    """

    name: str
    table: RewardTable
    published: dict[str, float] = field(default_factory=dict)


def parse(description: str, name: str, train: str) -> argparse.Namespace:
    """Reads the command line of a benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default=train, help="training data: file or folder (default: %(default)s)")
    parser.add_argument("--test", help="test data of the same format (default: a held-out fifth of the training data)")
    parser.add_argument("--encoder", required=True, help="folder or Hub id of the encoder, e.g. all-MiniLM-L6-v2")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (default: %(default)s)")
    parser.add_argument("--output", default=f"benchmarks/results/{name}", help="where the reports go")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error("--seeds must be at least 1")
    if not Path(arguments.train).exists():
        parser.error(f"--train: {arguments.train} is not there; name the folder of the data")
    if arguments.test is not None and not Path(arguments.test).exists():
        parser.error(f"--test: {arguments.test} is not there")
    return arguments


def new_router(table: RewardTable, encoder: str, recipe: Recipe, seed: int) -> ZooterForRouting:
    """Makes an untrained router; its head depends on the seed."""
    set_seed(seed)
    kwargs = {"encoder_kwargs": {"dtype": torch.float32}, **recipe.config}
    return ZooterForRouting.from_encoder(encoder, experts=table.experts, **kwargs)


def train(
    router: ZooterForRouting, table: RewardTable, recipe: Recipe, seed: int, embeddings: torch.Tensor | None = None
) -> ZooterForRouting:
    """Trains a router; nothing is kept but the router."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = DistillationArguments(
            folder, seed=seed, save_strategy="no", logging_strategy="no", disable_tqdm=True, **recipe.arguments
        )
        trainer = ZooterTrainer(router, arguments, table, embeddings=embeddings)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return trainer.finish()


def run(
    arguments: argparse.Namespace, recipe: Recipe, training: RewardTable, parts: Sequence[Part], average: str
) -> dict[str, list[EvaluationReport]]:
    """Trains a router for every seed, evaluates it on every part, prints and saves the tables."""
    untrained = new_router(training, arguments.encoder, recipe, seed=0)
    embeddings = predict(untrained, training.queries, description="Embedding training queries").embeddings
    of_parts = [
        predict(untrained, part.table.queries, description=f"Embedding {part.name}").embeddings for part in parts
    ]
    reports: dict[str, list[EvaluationReport]] = {part.name: [] for part in parts}
    for seed in range(arguments.seeds):
        router = train(new_router(training, arguments.encoder, recipe, seed), training, recipe, seed, embeddings)
        for part, of_part in zip(parts, of_parts, strict=True):
            report = evaluate_probabilities(
                route_embeddings(router, of_part)
                if recipe.arguments.get("freeze_encoder")
                else predict(router, part.table.queries).probabilities,
                part.table,
                embeddings=of_part,
                training_table=training,
                training_embeddings=embeddings,
                average=average,
                name="zooter-hf",
                dataset=part.name,
            )
            reports[part.name].append(report)
            folder = Path(arguments.output, part.name.replace(" ", "-"), f"seed-{seed}")
            report.save(folder, overwrite=True)
    text = "\n\n".join(render(part, reports[part.name]) for part in parts)
    print(text)
    folder = Path(arguments.output)
    (folder / "summary.md").write_text(text + "\n", encoding="utf-8")
    summary = {name: [report.to_dict() for report in of_part] for name, of_part in reports.items()}
    (folder / "reports.json").write_text(json.dumps(summary), encoding="utf-8")
    return reports


def spread(values: Sequence[float], format: Callable[[float], str]) -> str:
    """Writes a mean, and the standard deviation over the seeds if there are several."""
    text = format(statistics.fmean(values))
    return text if len(values) < 2 else f"{text} ± {format(statistics.stdev(values))}"


def render(part: Part, reports: Sequence[EvaluationReport]) -> str:
    """Makes the Markdown tables of a part: overall and by subset, router as mean and spread over the seeds."""
    first = reports[0]
    names = [name for name in first.subsets if len(first.subsets) > 1]
    over = "the subsets" if first.average == "subsets" else "the queries"
    lines = [
        f"### {part.name}: {first.queries:,} queries, mean over {over}, {len(reports)} seeds",
        "",
        "| | mean | interval | " + " | ".join(names) + " |",
        "|---|---:|---:|" + "---:|" * len(names),
    ]

    def cells(values: Sequence[str]) -> str:
        return "| " + " | ".join(values) + " |"

    def percent(value: float) -> str:
        return f"{100 * value:.2f}"

    lines.append(
        cells(
            [
                "**zooter-hf**",
                f"**{spread([report.score for report in reports], percent)}**",
                f"{percent(first.router_row.low)} to {percent(first.router_row.high)}",
                *(spread([r.router_row.subsets[name] for r in reports], lambda v: f"{100 * v:.1f}") for name in names),
            ]
        )
    )
    rows = [*(row for kind in BASELINES if (row := first.row(kind))), *first.expert_rows]
    for row in rows:
        lines.append(
            cells(
                [
                    row.name,
                    percent(row.score),
                    f"{percent(row.low)} to {percent(row.high)}",
                    *(f"{100 * row.subsets[name]:.1f}" for name in names),
                ]
            )
        )
    lines += [
        cells([f"published: {name}", f"{value:.2f}", "", *[""] * len(names)]) for name, value in part.published.items()
    ]
    lines.append("")
    for kind in ("best_single", "knn", "kmeans"):
        compared = [comparison for report in reports if (comparison := report.comparison(kind))]
        if compared:
            gains = spread([each.difference for each in compared], lambda v: f"{100 * v:.2f}")
            p_values = ", ".join(f"{each.p_value:.2g}" for each in compared)
            lines.append(
                f"- Gain over {compared[0].name}: {gains}; seed 0: {percent(compared[0].low)} to "
                f"{percent(compared[0].high)} (95 %, paired). p by seed: {p_values}."
            )
    figures = {
        "regret": [100 * report.regret for report in reports],
        "top-1 agreement": [100 * report.top1_agreement for report in reports],
        "calibration error": [100 * report.ece for report in reports],
    }
    if first.mean_task_rank is not None:
        figures |= {"MTR": [r.mean_task_rank for r in reports], "uplift": [100 * r.uplift for r in reports]}
    lines.append("- " + ", ".join(f"{name} {statistics.fmean(values):.2f}" for name, values in figures.items()) + ".")
    return "\n".join(lines)


def quiet():
    """Keeps the library's notes out of the tables."""
    logging.set_verbosity_error()
