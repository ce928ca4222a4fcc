"""`zooter distill`: a table of rewards becomes a router."""

import sys
from contextlib import redirect_stdout
from enum import Enum
from typing import Annotated

import typer


class Preset(str, Enum):
    """Named settings."""

    default = "default"
    paper = "paper"


def distill(
    table: Annotated[str, typer.Argument(help="Reward table: a file, a folder, or a dataset's id on the Hub.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the router.")],
    encoder: Annotated[
        str | None, typer.Option("--encoder", "-e", help="Pretrained encoder: a folder or a Hub id.")
    ] = None,
    preset: Annotated[
        Preset, typer.Option(help="default: what validated best with small encoders. paper: the paper's settings.")
    ] = Preset.default,
    train_encoder: Annotated[
        bool, typer.Option("--train-encoder", help="Train the whole encoder, not the head alone.")
    ] = False,
    lora_r: Annotated[
        int | None, typer.Option("--lora-r", help="Train the encoder through LoRA adapters of this rank.")
    ] = None,
    test: Annotated[
        str | None, typer.Option("--test", help="Table to evaluate on. A part of TABLE by default.")
    ] = None,
    test_share: Annotated[float, typer.Option(help="Size of that part; 0 trains on everything.")] = 0.1,
    tau: Annotated[str | None, typer.Option(help="Temperature of the targets, or auto.")] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight of a query's own rewards against its tags'; 1 for no enhancement.")
    ] = None,
    average: Annotated[str | None, typer.Option(help="Average rewards or probabilities over a tag.")] = None,
    standardize: Annotated[
        bool | None, typer.Option("--standardize/--raw-rewards", help="Bring rewards to one scale first.")
    ] = None,
    objective: Annotated[str | None, typer.Option(help="kl, cross_entropy, bce or mse.")] = None,
    clusters: Annotated[int, typer.Option(min=0, help="Clusters in place of tags, where there are none.")] = 20,
    predict_rewards: Annotated[
        bool, typer.Option("--predict-rewards", help="Predict each expert's reward too, to trade it against prices.")
    ] = False,
    balance_subsets: Annotated[
        bool, typer.Option("--balance-subsets", help="See every subset equally often.")
    ] = False,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many epochs without a lower regret on a part of TABLE held out for it."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the table.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Queries in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    head_learning_rate: Annotated[float | None, typer.Option(help="That of the head, where it differs.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    save_steps: Annotated[int | None, typer.Option(min=1, help="Checkpoint after so many steps.")] = None,
    head: Annotated[str | None, typer.Option(help="linear, mlp or cosine.")] = None,
    pooling: Annotated[str | None, typer.Option(help="mean or cls.")] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale query embeddings to length 1, as many sentence encoders do.")
    ] = False,
    max_query_tokens: Annotated[int | None, typer.Option(help="Read at most this many tokens of a query.")] = None,
    name: Annotated[str | None, typer.Option(help="What the router is called. Its folder's name by default.")] = None,
    base_encoder: Annotated[
        str | None, typer.Option(help="Hub id of the encoder for the card, if --encoder is a folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.")] = 42,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a router that is in the folder.")] = False,
):
    """Train a router from a reward table, and write it with its card and its evaluation.

    Stopped at any point, the same command goes on where it was. By default the head alone is trained, on embeddings
    that are computed once: seconds on a CPU, after one pass over the queries.
    """
    from zooter_hf import RewardTable
    from zooter_hf.cli.evaluate import print_report
    from zooter_hf.distillation import PAPER_ENCODER, PAPER_SETTINGS, DistillationArguments
    from zooter_hf.distillation import distill as run

    if encoder is None and preset is not Preset.paper:
        raise ValueError(
            "Which encoder? Give a folder or a Hub id, for instance --encoder sentence-transformers/all-MiniLM-L6-v2."
        )
    given = {
        "tau": tau,
        "beta": beta,
        "average": average,
        "standardize": standardize,
        "objective": objective,
        "early_stopping_patience": patience,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
        "head_learning_rate": head_learning_rate,
        "weight_decay": weight_decay,
        "lora_r": lora_r,
    }
    if save_steps is not None:
        given |= {"save_strategy": "steps", "save_steps": save_steps}
    settings = dict(PAPER_SETTINGS) if preset is Preset.paper else {}
    settings |= {key: value for key, value in given.items() if value is not None}
    settings["freeze_encoder"] = not train_encoder and lora_r is None and preset is not Preset.paper
    if train_encoder and lora_r is not None:
        raise ValueError("--train-encoder trains the whole encoder and --lora-r adapters. Give one of them.")
    if preset is Preset.paper and head is None:
        head = "linear"
    config = {"head": head, "pooling": pooling, "max_query_tokens": max_query_tokens, "normalize": normalize or None}
    if predict_rewards:
        settings["reward_weight"] = 1.0
    args = DistillationArguments(output, balance_subsets=balance_subsets, seed=seed, **settings)
    with redirect_stdout(sys.stderr):  # what the trainer says of its progress; the report is for standard output
        distillation = run(
            RewardTable.load(table),
            encoder or PAPER_ENCODER,
            output,
            args,
            test_table=None if test is None else RewardTable.load(test),
            test_share=test_share,
            clusters=clusters,
            name=name,
            base_encoder=base_encoder,
            overwrite=overwrite,
            **{key: value for key, value in config.items() if value is not None},
        )
    if distillation.report is not None:
        print_report(distillation.report)
    print(f'The router is in {distillation.folder}. Try it: zooter route "..." --model {distillation.folder}')
