"""`zooter evaluate`: how good is this router?"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from zooter_hf.cli.loading import load_config, quiet_loading, resolve_router


if TYPE_CHECKING:
    from zooter_hf.evaluation import CostQualityReport, EvaluationReport, SetReport
    from zooter_hf.rewards import RewardTable
    from zooter_hf.routing import Predictions


def evaluate(
    router: Annotated[str, typer.Argument(help="A folder or a Hub id.")],
    table: Annotated[str, typer.Argument(help="Reward table: a file, a folder or a Hub id.")],
    train: Annotated[
        str | None, typer.Option(help="Reward table of the training: adds baselines that learn from it.")
    ] = None,
    true_rewards: Annotated[
        str | None, typer.Option(help="Table of true scores of the same queries: adds reward model ranking.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder for the report and its plots.")] = None,
    average: Annotated[
        Literal["queries", "subsets"], typer.Option(help="Scores are means over queries, or of the subsets' means.")
    ] = "queries",
    tau: Annotated[
        float | None, typer.Option(help="Temperature of the targets, for the KL divergence from them.")
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight of a query's own rewards in its target; with --tau. 0.3 by default.")
    ] = None,
    sets: Annotated[
        list[float] | None,
        typer.Option("--sets", metavar="ALPHA", help="Sets of experts that hold a good one of all but this share."),
    ] = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="Quality against cost; needs costs in TABLE and in --train.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a router on the Hub.")] = None,
    name: Annotated[str | None, typer.Option(help="What the report calls the router.")] = None,
    seed: Annotated[int, typer.Option(help="Which resamples, and where clusters start.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries in one forward pass.")] = 32,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps. The first accelerator by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the whole report as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report in the output folder.")] = False,
    no_plots: Annotated[bool, typer.Option("--no-plots", help="Save the report without plots.")] = False,
):
    """Measure a router against single models, chance, the oracle and routing without training."""
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    from zooter_hf.distillation import soft_targets
    from zooter_hf.evaluation import EvaluationReport
    from zooter_hf.evaluation import evaluate as run
    from zooter_hf.routing import predict

    if beta is not None and tau is None:
        raise ValueError("--beta is a setting of the targets, which are made with --tau. Give both.")
    if as_json and (sets or costs):
        raise ValueError("--json writes one report. Have those of --sets and --costs saved: --output FOLDER.")
    if costs and train is None:
        raise ValueError("--costs needs --train: what an answer will cost is known from the costs of the training.")
    if output is not None:
        EvaluationReport.check_folder(output, overwrite=overwrite, plots=not no_plots)
    quiet_loading()
    folder = resolve_router(router)
    experts = load_config(folder, revision).expert_names
    tables = {
        which: None if source is None else load_table(source, experts)
        for which, source in (("table", table), ("training_table", train), ("true_rewards", true_rewards))
    }
    if costs and any(tables[which].costs is None for which in ("table", "training_table")):
        raise ValueError("--costs needs the costs of answers in both TABLE and --train, in US dollars.")
    targets = None
    if tau is not None:
        rewards, tags = tables["table"].rewards, tables["table"].tags
        targets = soft_targets(rewards, tags, tau=tau, **({} if beta is None else {"beta": beta}))
    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    model = AutoModel.from_pretrained(folder, revision=revision).to(device)
    if sys.stderr.isatty():
        logging.enable_progress_bar()
    predictions = predict(model, tables["table"].queries, batch_size=batch_size)
    dataset = Path(table).stem if os.path.exists(os.path.expanduser(table)) else table
    further = {}
    if sets:
        further["sets"] = measure_sets(predictions, tables["table"], sets, seed, dataset)
    if costs:
        further["costs"] = measure_costs(predictions, tables["table"], tables["training_table"], seed, dataset)
    report = run(
        model,
        **tables,
        targets=targets,
        average=average,
        seed=seed,
        batch_size=batch_size,
        name=name,
        dataset=dataset,
        predictions=predictions,
    )
    if output is not None:
        report.save(output, overwrite=overwrite, plots=not no_plots)
        for kind, each in further.items():
            each.save(Path(output, kind), overwrite=overwrite, plots=not no_plots)
    if as_json:
        print(report.to_json(), end="")
    else:
        print_report(report)
        for each in further.values():
            print(f"\n{each.to_markdown()}")
        if output is not None:
            print(f"Saved in {output}")


def measure_sets(
    predictions: "Predictions", table: "RewardTable", alphas: list[float], seed: int, dataset: str
) -> "SetReport":
    """Evaluates sets over repeated splits of a table."""
    from zooter_hf.calibration.sets import set_scores
    from zooter_hf.evaluation import evaluate_sets

    subsets = None if None in table.subsets else table.subsets
    scores = set_scores(predictions)
    return evaluate_sets(scores, table.rewards, alphas=alphas, subsets=subsets, seed=seed, dataset=dataset)


def measure_costs(
    predictions: "Predictions", table: "RewardTable", training: "RewardTable", seed: int, dataset: str
) -> "CostQualityReport":
    """Compares what a router gives for its cost; what an answer will cost is the mean cost of the training."""
    from zooter_hf.evaluation import evaluate_costs

    methods = {"probabilities": predictions.probabilities.double()}
    if predictions.predicted_rewards is not None:
        methods["predicted rewards"] = predictions.predicted_rewards.double()
    expected = training.costs.nanmean(dim=0)
    return evaluate_costs(
        methods, table.rewards, table.costs, expected, table.expert_names, seed=seed, dataset=dataset
    )


def load_table(source: str, experts: list[str]) -> "RewardTable":
    """Loads a table; experts that stand in it in another order than the router's are brought into that order."""
    from zooter_hf import RewardTable

    table = RewardTable.load(source)
    if table.expert_names != experts and sorted(table.expert_names) == sorted(experts):
        return table.select_experts(experts)
    return table


def print_report(report: "EvaluationReport"):
    """Prints a report for a person."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from zooter_hf.evaluation.markdown import cost_text, p_text, quality_line

    # In a pipe or a log there is no terminal whose width could be asked for.
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)
    unit = ", in percent" if report.percent else ""
    over = "the queries" if report.average == "queries" else f"{len(report.subsets)} subsets"
    console.print(
        Text(f"{report.dataset}: {report.queries:,} queries; mean reward over {over}{unit}, with {_interval(report)}.")
    )

    overall = Table()
    overall.add_column("", overflow="fold")
    for title in ("score", "interval", *(["MTR", "uplift"] if report.subsets else [])):
        overall.add_column(title, justify="right", no_wrap=True)
    if report.has_costs:
        overall.add_column("$ / 1000", justify="right", no_wrap=True)
    for row in report.rows:
        cells = [row.name, report.format(row.score), f"{report.format(row.low)} to {report.format(row.high)}"]
        if report.subsets:
            cells.append("-" if row.mean_task_rank is None else f"{row.mean_task_rank:.2f}")
            cells.append("-" if row.uplift is None else f"{row.uplift:.0%}")
        if report.has_costs:
            cells.append(cost_text(row.cost))
        overall.add_row(*(Text(cell, style="bold" if row.kind == "router" else "") for cell in cells))
    console.print(overall)

    if report.subsets:
        by_subset = Table()
        by_subset.add_column("subset", overflow="fold")
        columns = [report.router_row, *(report.row(kind) for kind in ("best_single", "best_per_subset", "oracle"))]
        for title in ("queries", *(row.name for row in columns)):
            by_subset.add_column(Text(title), justify="right", overflow="fold")
        for subset, queries in report.subsets.items():
            by_subset.add_row(Text(subset), f"{queries:,}", *(report.format(row.subsets[subset]) for row in columns))
        console.print(by_subset)

    for each in report.comparisons:
        signed = [report.format(value, signed=True) for value in (each.difference, each.low, each.high)]
        console.print(Text(f"Gain over {each.name}: {signed[0]} ({signed[1]} to {signed[2]}), {p_text(each.p_value)}"))
    console.print(Text(f"Quality: {quality_line(report)}"))
    if report.rerouted:
        console.print(f"{report.rerouted:,} queries were routed to the next choice: the first has no reward there.")


def _interval(report: "EvaluationReport") -> str:
    return f"{100 * report.confidence:g} % intervals"
