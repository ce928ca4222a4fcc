"""`zooter info`: what is this router?"""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from zooter_hf.cli.loading import load_config, resolve_router


if TYPE_CHECKING:
    from zooter_hf import ZooterConfig


def info(
    router: Annotated[str | None, typer.Argument(help="A folder or a Hub id. The embedded router by default.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a router on the Hub.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the config as JSON.")] = False,
):
    """Show a router's encoder, experts, prices, training and calibration."""
    router = resolve_router(router)
    config = load_config(router, revision)
    if as_json:
        print(json.dumps(config.to_dict(), indent=2, ensure_ascii=False))
        return

    from rich.console import Console
    from rich.table import Table

    encoder = config.encoder_config
    training = config.training or {}
    facts = Table(show_header=False, box=None)
    facts.add_column(style="bold")
    facts.add_column()
    facts.add_row("router", training.get("name") or router)
    facts.add_row(
        "encoder",
        f"{encoder.model_type}, {getattr(encoder, 'num_hidden_layers', '?')} layers of width {config.hidden_size}"
        + (f", from {config.base_encoder}" if config.base_encoder else ""),
    )
    facts.add_row("head", f"{config.head} on {config.pooling} pooling")
    facts.add_row("reads", f"at most {config.max_query_tokens} tokens; of a chat: {config.chat_context}")
    facts.add_row("calibration", describe_calibration(config))
    if config.policy:
        facts.add_row("policy", ", ".join(f"{name} {value}" for name, value in config.policy.items()))
    if config.predict_rewards:
        facts.add_row("rewards", "predicted for every expert")
    if config.centroids:
        facts.add_row("training known by", f"{len(config.centroids)} centroids")
    if config.removed_experts:
        facts.add_row("removed", ", ".join(config.removed_experts))
    facts.add_row("training", training.get("method") or "not recorded")
    for dataset in training.get("datasets", []):
        facts.add_row("data", f"{dataset['name']} ({dataset.get('license') or 'licence not stated'})")
    if evaluation := training.get("evaluation"):
        single = evaluation["best_single_model"]
        score = "{:.1%}" if evaluation.get("percent", True) else "{:.4g}"
        facts.add_row(
            "evaluation",
            f"{score.format(evaluation['router']['score'])} on {evaluation['dataset']} "
            f"({evaluation['queries']:,} queries); best single model {score.format(single['score'])} "
            f"({single['expert']})",
        )

    experts = Table()
    for title in ("expert", "model", "back end"):
        experts.add_column(title, overflow="fold")
    for title in ("$/M in", "$/M out", "context"):
        experts.add_column(title, justify="right", no_wrap=True)
    for expert in config.experts:
        values = (expert.model, expert.backend, expert.input_price, expert.output_price, expert.context_length)
        experts.add_row(expert.name, *("-" if value is None else str(value) for value in values))
    console = Console()
    console.print(facts)
    console.print(experts)
    if any(expert.input_price is not None for expert in config.experts):
        console.print("Prices: US dollars per million tokens.")


def describe_calibration(config: "ZooterConfig") -> str:
    """Says how a router's probabilities were calibrated, if they were."""
    if config.calibration_scale or config.calibration_bias:
        return "a scale and a bias for every expert"
    return f"temperature {config.temperature:.4g}" if config.temperature != 1 else "temperature 1.0 (not calibrated)"
