"""Where a router comes from, for its config and model card."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zooter_hf.distillation.arguments import DistillationArguments
from zooter_hf.rewards import RewardTable


if TYPE_CHECKING:
    from zooter_hf.evaluation import EvaluationReport


_OBJECTIVES = {
    "kl": "the distribution of the rewards over the experts, by KL divergence",
    "cross_entropy": "which expert is best, by cross-entropy",
    "bce": "the reward of every expert, by binary cross-entropy",
    "mse": "the reward of every expert, by squared error",
}
_MODES = {
    "frozen": "The encoder is kept as it was; the head alone is trained.",
    "lora": "The encoder is trained through LoRA adapters, which are merged into it.",
    "full": "Encoder and head are trained.",
}


def describe_training(
    table: RewardTable,
    args: DistillationArguments,
    *,
    tau: float,
    tags: str,
    name: str,
    datasets: Sequence[dict[str, Any]] = (),
    report: "EvaluationReport | None" = None,
) -> dict[str, Any]:
    """Makes the `training` of a router's config.

    Args:
        table: What it was trained on.
        args: The settings.
        tau: The temperature of the targets.
        tags: What the tags are, for a person.
        name: What the router is called.
        datasets: Where the data comes from: `{"name", "url", "license", "queries"}`.
        report: The evaluation.
    """
    enhanced = args.objective != "cross_entropy" and args.beta < 1 and any(table.tags)
    enhancement = (
        f", with tag-based label enhancement (tags: {tags}; {args.average} are averaged over a tag)"
        if enhanced
        else ", without label enhancement"
    )
    hyperparameters = {
        "objective": args.objective,
        "rewards": "standardised" if args.standardize and args.objective in ("kl", "mse") else "as they are",
        "learning rate": f"{args.learning_rate:g}"
        + (f" (head {args.head_learning_rate:g})" if args.head_learning_rate is not None else ""),
        "schedule": f"{args.lr_scheduler_type.value}, warm-up {args.warmup_steps:g}",
        "weight decay": f"{args.weight_decay:g}",
        "epochs": f"{args.num_train_epochs:g}",
        "batch size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "seed": args.seed,
    }
    if args.lora_r is not None:
        hyperparameters["LoRA rank"] = args.lora_r
    if enhanced:
        options = {"leave_one_out": False, "shrinkage": 0.0, "min_support": 1}
        hyperparameters |= {key: getattr(args, key) for key, usual in options.items() if getattr(args, key) != usual}
    if args.balance_subsets:
        hyperparameters["sampling"] = "subsets balanced"
    training = {
        "name": name,
        "method": f"Reward distillation: the router learns {_OBJECTIVES[args.objective]}{enhancement}. "
        f"{_MODES[args.mode]}",
        "datasets": [dict(dataset) for dataset in datasets],
        "queries": len(table),
        "hyperparameters": hyperparameters,
    }
    if args.objective == "kl":
        training["tau"] = tau
    if enhanced:
        training["beta"] = args.beta
    if report is not None:
        training["evaluation"] = report.card_evaluation()
    return training
