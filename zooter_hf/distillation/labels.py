"""The labels of a table, as the arguments of a run ask for them."""

import torch

from zooter_hf.distillation.arguments import DistillationArguments
from zooter_hf.distillation.enhancement import enhance, find_neighbours
from zooter_hf.distillation.targets import hard_labels, soft_targets, standardize
from zooter_hf.rewards import RewardTable


def make_labels(
    table: RewardTable,
    args: DistillationArguments,
    tau: float,
    reference: torch.Tensor | None = None,
    embeddings: torch.Tensor | None = None,
) -> torch.Tensor:
    """Makes what the objective asks for.

    Args:
        table: The rewards and tags.
        args: The objective and the settings of the targets. Rewards are standardised for `"kl"` and `"mse"` only:
            `"bce"` needs them between 0 and 1, and the best expert is the best on any scale.
        tau: Temperature of the targets.
        reference: The rewards whose mean and deviation standardise, where not the table's own.
        embeddings: The query embeddings, shape `(queries, hidden_size)`; needed for neighbours.

    Returns:
        `torch.Tensor`: Distributions or rewards of shape `(queries, experts)`.
    """
    rewards = table.rewards
    if args.standardize and args.objective in ("kl", "mse"):
        rewards = standardize(rewards, reference)
    enhancement = {
        "beta": args.beta,
        "leave_one_out": args.leave_one_out,
        "shrinkage": args.shrinkage,
        "min_support": args.min_support,
        "neighbour_weight": args.neighbour_weight,
    }
    if args.uses_neighbours and embeddings is not None:
        enhancement["neighbours"] = find_neighbours(embeddings, table.tags, args.neighbours)
    if args.objective == "kl":
        return soft_targets(rewards, table.tags, tau=tau, average=args.average, **enhancement)
    if args.objective == "cross_entropy":
        return hard_labels(rewards)
    return enhance(rewards, table.tags, **enhancement)


def make_reward_labels(table: RewardTable, args: DistillationArguments) -> torch.Tensor:
    """Makes what the predicted rewards of a table are to be, in its own units: rewards mixed with those of their tags.

    The noise of single rewards is that of the targets, and so is the remedy.

    Args:
        table: The rewards and tags.
        args: The settings of the enhancement; neighbours have no say.

    Returns:
        `torch.Tensor` of shape `(queries, experts)`, NaN where a reward is missing.
    """
    return enhance(
        table.rewards,
        table.tags,
        beta=args.beta,
        leave_one_out=args.leave_one_out,
        shrinkage=args.shrinkage,
        min_support=args.min_support,
    )
