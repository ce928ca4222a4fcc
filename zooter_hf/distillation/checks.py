"""What must hold before training begins."""

from zooter_hf.distillation.arguments import DistillationArguments
from zooter_hf.rewards import RewardTable


def check_table(table: RewardTable, args: DistillationArguments):
    """Raises `ValueError` if nothing can be learned from a table with these arguments; says why."""
    if len(table.experts) < 2:
        raise ValueError(
            f"The table has a single expert, {table.expert_names[0]!r}: there is nothing to choose between. Join the "
            "rewards of others: `table.join`."
        )
    if len(table) < args.train_batch_size:
        raise ValueError(
            f"The table has {len(table)} queries, fewer than a batch of {args.train_batch_size}. Collect more, or set "
            "a smaller `per_device_train_batch_size` (--batch-size)."
        )
    rewards = table.rewards
    known = ~rewards.isnan()
    if not known.any(dim=0).all():
        missing = [name for name, some in zip(table.expert_names, known.any(dim=0).tolist(), strict=True) if not some]
        raise ValueError(f"The experts {missing} have no reward at all. Leave them out: `table.select_experts`.")
    highest = rewards.nan_to_num(nan=float("-inf")).amax(dim=1)
    lowest = rewards.nan_to_num(nan=float("inf")).amin(dim=1)
    if not (highest > lowest).any():
        raise ValueError(
            "The rewards are constant: on no query is one expert better than another, so there is nothing to learn. "
            "Check the reward model, or the column that the rewards were read from."
        )
    if args.objective == "bce" and (rewards[known].min() < 0 or rewards[known].max() > 1):
        raise ValueError(
            f"The objective 'bce' needs rewards between 0 and 1; they lie between {rewards[known].min():g} and "
            f"{rewards[known].max():g}. Use 'mse' or 'kl'."
        )
    if args.balance_subsets and None in (subsets := table.subsets):
        raise ValueError(
            f"`balance_subsets` needs the subset of every query; {subsets.count(None)} of {len(table)} have none."
        )
