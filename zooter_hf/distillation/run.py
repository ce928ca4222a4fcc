"""A whole distillation: split, train, evaluate, save; stopped at any point, it goes on where it was."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.utils import logging

from zooter_hf.distillation.arguments import DistillationArguments
from zooter_hf.distillation.checks import check_table
from zooter_hf.distillation.describe import describe_training
from zooter_hf.distillation.labels import make_labels
from zooter_hf.distillation.trainer import ZooterTrainer
from zooter_hf.distillation.unfinished import UnfinishedRun, fingerprint
from zooter_hf.evaluation import EvaluationReport, evaluate_probabilities
from zooter_hf.modeling import ZooterForRouting
from zooter_hf.rewards import ClusterTagger, RewardTable
from zooter_hf.rewards.checks import check_experts
from zooter_hf.routing import predict


logger = logging.get_logger(__name__)

DEFAULT_HEAD = {"head": "mlp", "head_hidden_size": 256, "head_dropout": 0.2}
# Arguments that change how fast a run is or what it says, but not what comes out of it.
_INCIDENTAL = ("output_dir", "logging_", "report_to", "run_name", "disable_tqdm", "dataloader_", "push_to_hub", "hub_")


@dataclass(frozen=True)
class Distillation:
    """What a run gave.

    Args:
        router: The trained router.
        report: Its evaluation on queries that it was not trained on; `None` if all were for training.
        folder: Where both lie.
    """

    router: ZooterForRouting
    report: EvaluationReport | None
    folder: Path


def distill(
    table: RewardTable,
    encoder: str | os.PathLike,
    output: str | os.PathLike,
    args: DistillationArguments | None = None,
    *,
    test_table: RewardTable | None = None,
    test_share: float = 0.1,
    validation_share: float = 0.1,
    clusters: int = 20,
    name: str | None = None,
    base_encoder: str | None = None,
    datasets: Sequence[dict[str, Any]] = (),
    overwrite: bool = False,
    **config_kwargs,
) -> Distillation:
    """Trains a router from a reward table and saves it with its card and its evaluation.

    What is not finished lies in `<output>.unfinished`: a run that was stopped goes on from its last checkpoint when
    it is started again with the same table and settings. `output` itself is written at the end.

    Args:
        table: The rewards. If no query has a tag, clusters of query embeddings take their place in label enhancement.
        encoder: Folder or Hub id of the pretrained encoder.
        output: Folder of the router.
        args: The settings; by default those for a frozen encoder. Their `output_dir` is not used.
        test_table: What the router is evaluated on. By default a part of `table`, which is then not trained on.
        test_share: The size of that part; 0 for no evaluation.
        validation_share: How much of the rest early stopping watches, if it is asked for.
        clusters: How many clusters; 0 for no enhancement without tags.
        name: What the router is called; the name of the folder by default.
        base_encoder: Hub id of the encoder for the card, where `encoder` is a folder.
        datasets: For the card: `{"name", "url", "license", "queries"}`.
        overwrite: Whether a router in `output`, or an unfinished run with other settings, may be replaced.
        config_kwargs: Fields of [`ZooterConfig`]; a head with one hidden layer of 256 and dropout 0.2 by default.

    Raises:
        FileExistsError: If something is in `output`, or an unfinished run with other settings beside it.
        ValueError: If the table does not fit, or holds nothing to learn from.
        OSError: If there is no such encoder.
    """
    output = Path(output).expanduser()
    work = output.resolve().with_name(f"{output.resolve().name}.unfinished")
    args = DistillationArguments(str(work), freeze_encoder=True) if args is None else args
    args.output_dir = str(work / "checkpoints")
    _check_output(output, overwrite)
    check_table(table, args)
    if test_table is not None:
        remedy = "`test_table.select_experts(table.expert_names)`"
        check_experts("The table", table.expert_names, "the test table", test_table.expert_names, remedy)
    elif not 0 <= test_share < 1:
        raise ValueError(f"`test_share` must be at least 0 and less than 1, got {test_share}.")
    if use_clusters := bool(clusters) and args.beta < 1 and not any(table.tags):
        _need("sklearn", "Clusters in place of tags need scikit-learn", "or pass `clusters=0`")

    set_seed(args.seed)
    config_kwargs = {**DEFAULT_HEAD, **config_kwargs}
    router = ZooterForRouting.from_encoder(
        encoder,
        experts=table.experts,
        base_encoder=base_encoder,
        encoder_kwargs={"dtype": torch.float32},
        **config_kwargs,
    )
    run = UnfinishedRun(
        work,
        {
            "encoder": os.fspath(encoder),
            "table": fingerprint(table),
            "test": test_share if test_table is None else fingerprint(test_table),
            "validation": validation_share,
            "clusters": clusters,
            **config_kwargs,
            **{key: str(value) for key, value in args.to_dict().items() if not key.startswith(_INCIDENTAL)},
        },
        overwrite,
    )

    train, test, validation = table, test_table, None
    if test_table is None and test_share:
        train, test = train.split(test_share, seed=args.seed)
    if args.early_stopping_patience is not None:
        train, validation = train.split(validation_share, seed=args.seed)
    check_table(train, args)

    def embed(part: RewardTable | None, part_name: str) -> torch.Tensor | None:
        return None if part is None else run.embeddings(router, part, part_name, args.per_device_eval_batch_size)

    frozen = args.freeze_encoder
    wanted = frozen or use_clusters or args.uses_neighbours or args.tau == "auto"
    embeddings = embed(train, "train") if wanted else None
    if use_clusters:
        logger.info(f"The table has no tags: {clusters} clusters of its query embeddings take their place.")
        train = train.with_tags(ClusterTagger(clusters, seed=args.seed)(embeddings.numpy()))
    trainer = ZooterTrainer(
        router,
        args,
        train,
        validation,
        embeddings=embeddings,
        eval_embeddings=embed(validation, "validation") if frozen else None,
    )
    trainer.train(resume_from_checkpoint=run.last_checkpoint())
    router = trainer.finish()

    report = None
    if test is not None:
        report = _evaluate(router, train, test, trainer, embeddings if frozen else None)
    router.config.training = describe_training(
        train,
        args,
        tau=trainer.tau,
        tags=f"{clusters} clusters of query embeddings" if use_clusters else "those of the table",
        name=name or output.name,
        datasets=datasets,
        report=report,
    )
    if trainer.is_world_process_zero():
        router.save_pretrained(output)
        if report is not None:
            report.save(output / "evaluation", overwrite=overwrite, plots=_installed("matplotlib"))
        run.remove()
    return Distillation(router, report, output)


def _evaluate(
    router: ZooterForRouting,
    train: RewardTable,
    test: RewardTable,
    trainer: ZooterTrainer,
    train_embeddings: torch.Tensor | None,
) -> EvaluationReport:
    args = trainer.args
    predictions = predict(router, test.queries, batch_size=args.per_device_eval_batch_size, description="Evaluating")
    baselines = {}
    if _installed("sklearn"):
        if train_embeddings is None:
            batch_size = args.per_device_eval_batch_size
            train_embeddings = predict(
                router, train.queries, batch_size=batch_size, description="Baselines"
            ).embeddings
        baselines = {"training_table": train, "training_embeddings": train_embeddings}
    else:
        logger.warning('Without scikit-learn there are no baselines: pip install "zooter-hf[evaluation]".')
    targets = make_labels(test, args, trainer.tau, train.rewards) if args.objective == "kl" else None
    return evaluate_probabilities(
        predictions.probabilities,
        test,
        embeddings=predictions.embeddings,
        targets=targets,
        seed=args.seed,
        **baselines,
    )


def _check_output(output: Path, overwrite: bool):
    if output.is_file():
        raise FileExistsError(f"{output} is a file. Give a folder for the router.")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        there = "holds a router" if (output / "config.json").exists() else "is not empty"
        raise FileExistsError(
            f"{output} {there}. Give another folder, or pass `overwrite=True` (--overwrite) to replace what is there."
        )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _need(module: str, what: str, otherwise: str):
    if not _installed(module):
        raise ImportError(f'{what}: pip install "zooter-hf[evaluation]", {otherwise}.')
