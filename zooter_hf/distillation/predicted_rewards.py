"""A second head that predicts rewards, for a router that is trained already."""

import tempfile

import torch
from transformers import PrinterCallback, set_seed

from zooter_hf.distillation.arguments import DistillationArguments
from zooter_hf.distillation.trainer import ZooterTrainer
from zooter_hf.modeling import ZooterForRouting
from zooter_hf.rewards import RewardTable


def fit_rewards(
    router: ZooterForRouting,
    table: RewardTable,
    *,
    embeddings: torch.Tensor | None = None,
    seed: int = 0,
    **settings,
) -> ZooterForRouting:
    """Gives a router a head that predicts the reward of every expert, in the units of a table; all else stays.

    To train it together with the distribution, use `reward_weight` of [`DistillationArguments`] instead.

    Args:
        router: The router, with its tokenizer; it is changed. A head that it has is trained on.
        table: Rewards of its experts.
        embeddings: The query embeddings of the table, shape `(queries, hidden_size)`, if they are known.
        seed: Of the new head and its training.
        settings: Of [`DistillationArguments`]: `beta`, `num_train_epochs`, `learning_rate`, ...

    Returns:
        The router.

    Raises:
        ValueError: If the table does not fit the router, or a setting is out of its range.
    """
    set_seed(seed)
    router.add_reward_head()
    trainable = {name: parameter.requires_grad for name, parameter in router.named_parameters()}
    for name, parameter in router.named_parameters():
        parameter.requires_grad_(name.startswith("reward_head."))
    dtype = router.dtype
    router.reward_head.float()
    try:
        with tempfile.TemporaryDirectory() as folder:
            usual = {
                "save_strategy": "no",
                "logging_strategy": "no",
                "reward_weight": 1.0,
                "freeze_encoder": True,
                "per_device_train_batch_size": min(128, len(table)),
            }
            args = DistillationArguments(folder, seed=seed, **{**usual, **settings})
            trainer = ZooterTrainer(router, args, table, embeddings=embeddings)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            trainer.finish()
    finally:
        router.reward_head.to(dtype)
        for name, parameter in router.named_parameters():
            parameter.requires_grad_(trainable.get(name, True))
    return router.eval()
