"""The trainer of routers."""

from typing import Any

import torch
from transformers import EarlyStoppingCallback, EvalPrediction, Trainer
from transformers.utils import logging

from zooter_hf.distillation.arguments import DistillationArguments
from zooter_hf.distillation.checks import check_table
from zooter_hf.distillation.dataset import DistillationDataset, collate, tokenize_table
from zooter_hf.distillation.labels import make_labels, make_reward_labels
from zooter_hf.distillation.objectives import distillation_loss
from zooter_hf.distillation.sampling import BalancedSampler
from zooter_hf.distillation.temperature import fit_tau
from zooter_hf.modeling import ZooterForRouting
from zooter_hf.rewards import RewardTable
from zooter_hf.rewards.checks import check_experts
from zooter_hf.rewards.scores import oracle_rewards, regret
from zooter_hf.rewards.storage import temporary_directory
from zooter_hf.routing import predict


logger = logging.get_logger(__name__)

REMEDY = "`table.select_experts(router.expert_names)`, or train a router for the experts of the table"


class ZooterTrainer(Trainer):
    """Distils rewards into a router (section 3 of arXiv 2311.08692).

    A [`~transformers.Trainer`] that takes reward tables for datasets: distributed training, mixed precision,
    checkpoints, resuming, callbacks and reporting are the library's.

    Args:
        model: The router, with its tokenizer. With `lora_r` its encoder gets adapters.
        args: The settings.
        train_dataset: The training table.
        eval_dataset: The validation table. Evaluation gives its mean `reward`, `regret` and `top1` agreement.
        embeddings: The query embeddings of the training table, of shape `(queries, hidden_size)`, if they are known
            already: what `predict(router, table.queries)` gives. They are used with `freeze_encoder`, by
            `neighbours` and by `tau="auto"`.
        eval_embeddings: Those of the validation table.
        kwargs: Passed on to [`~transformers.Trainer`]: `callbacks`, `optimizers`, ...

    Raises:
        ValueError: Before any work, if the tables do not fit the router or the settings, or hold nothing to learn
            from.

    Example:
    ```python
    >>> from zooter_hf import DistillationArguments, RewardTable, ZooterForRouting, ZooterTrainer

    >>> table = RewardTable.load("rewards.jsonl")  # doctest: +SKIP
    >>> router = ZooterForRouting.from_encoder("microsoft/mdeberta-v3-base", experts=table.experts)  # doctest: +SKIP
    >>> trainer = ZooterTrainer(router, DistillationArguments.paper("runs"), train_dataset=table)  # doctest: +SKIP
    >>> trainer.train()  # doctest: +SKIP

    ```
    """

    def __init__(
        self,
        model: ZooterForRouting,
        args: DistillationArguments,
        train_dataset: RewardTable | None = None,
        eval_dataset: RewardTable | None = None,
        *,
        embeddings: torch.Tensor | None = None,
        eval_embeddings: torch.Tensor | None = None,
        **kwargs,
    ):
        if train_dataset is not None:
            check_experts("The router", model.expert_names, "the training table", train_dataset.expert_names, REMEDY)
            check_table(train_dataset, args)
        if eval_dataset is not None:
            check_experts("The router", model.expert_names, "the validation table", eval_dataset.expert_names, REMEDY)
        if args.early_stopping_patience is not None and eval_dataset is None:
            raise ValueError("Early stopping needs a validation table: pass `eval_dataset`, or `table.split()` one.")
        if model.tokenizer is None:
            raise ValueError("The router has no tokenizer. Set `router.tokenizer`.")
        self._reward_units = None
        if args.reward_weight:
            # The head learns in standard deviations, whatever the teacher's scale; `finish` brings it into its units.
            rewards = (eval_dataset if train_dataset is None else train_dataset).rewards
            known = rewards[~rewards.isnan()]
            self._reward_units = (known.mean().item(), known.std(correction=0).item() or 1.0)
            if model.config.predict_rewards:
                mean, spread = self._reward_units
                model.reward_head.rescale(1 / spread, -mean / spread)
            model.add_reward_head()
        if args.freeze_encoder:
            for parameter in model.encoder.parameters():
                parameter.requires_grad_(False)
        if embeddings is not None and train_dataset is not None and len(embeddings) != len(train_dataset):
            raise ValueError(f"There are {len(train_dataset)} queries, but embeddings of {len(embeddings)}.")
        # Where the tokens of the tables lie, for as long as the trainer does.
        self._directory = temporary_directory()
        self.tau = args.tau
        self._subsets = train_dataset.subsets if args.balance_subsets and train_dataset is not None else None
        training_data = validation_data = None
        if train_dataset is not None:
            if embeddings is None and (args.freeze_encoder or args.uses_neighbours or args.tau == "auto"):
                embeddings = _embed(model, args, train_dataset)
            if args.tau == "auto":
                self.tau = fit_tau(train_dataset, embeddings, args)
            labels = make_labels(train_dataset, args, self.tau, embeddings=embeddings)
            training_data = self._prepare(model, args, train_dataset, embeddings, labels)
        elif args.tau == "auto":
            raise ValueError("`tau='auto'` is fitted on the training table. Give one, or a number.")
        if eval_dataset is not None:
            if eval_embeddings is None and args.freeze_encoder:
                eval_embeddings = _embed(model, args, eval_dataset)
            reference = None if train_dataset is None else train_dataset.rewards
            labels = make_labels(eval_dataset, args, self.tau, reference)
            validation_data = self._prepare(model, args, eval_dataset, eval_embeddings, labels)
        if args.lora_r is not None:
            model = add_lora(model, args)
        if args.early_stopping_patience is not None:
            kwargs["callbacks"] = [
                *(kwargs.get("callbacks") or []),
                EarlyStoppingCallback(args.early_stopping_patience),
            ]
        kwargs.setdefault("data_collator", collate)
        kwargs.setdefault("compute_metrics", routing_metrics)
        super().__init__(model=model, args=args, train_dataset=training_data, eval_dataset=validation_data, **kwargs)

    @property
    def router(self) -> ZooterForRouting:
        """The router in training; of one with adapters see [`~ZooterTrainer.finish`]."""
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def finish(self) -> ZooterForRouting:
        """Ends training: merges adapters, brings predicted rewards into their units, and returns the router."""
        model = self.accelerator.unwrap_model(self.model)
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        if self.args.objective == "mse":
            # The logits are rewards here; this makes their distribution that of the targets.
            model.config.temperature = self.tau
        if self._reward_units is not None:
            mean, spread = self._reward_units
            model.reward_head.rescale(spread, mean)
            self._reward_units = None
        return model.eval()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Computes the loss of the objective. See [`~transformers.Trainer.compute_loss`]."""
        inputs = dict(inputs)
        labels, expert_mask, _ = (inputs.pop(name) for name in ("labels", "expert_mask", "rewards"))
        reward_labels = inputs.pop("reward_labels", None)
        outputs = model(**inputs)
        loss = distillation_loss(outputs.logits, labels, expert_mask, self.args.objective)
        if reward_labels is not None:
            mean, spread = self._reward_units
            wanted = (reward_labels - mean) / spread
            of_rewards = distillation_loss(outputs.predicted_rewards, wanted, expert_mask, "mse")
            loss = loss + self.args.reward_weight * of_rewards
        return (loss, {"loss": loss, "logits": outputs.logits}) if return_outputs else loss

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Creates the optimiser, with a learning rate of its own for the head if the arguments have one."""
        if self.optimizer is not None or self.args.head_learning_rate is None:
            return super().create_optimizer(model)
        optimizer = super().create_optimizer(model)
        head = {
            id(parameter)
            for name, parameter in (self.model if model is None else model).named_parameters()
            if ".classifier." in f".{name}" or ".reward_head." in f".{name}"
        }
        groups = []
        for group in optimizer.param_groups:
            of_head = [parameter for parameter in group["params"] if id(parameter) in head]
            of_encoder = [parameter for parameter in group["params"] if id(parameter) not in head]
            groups.append({**group, "params": of_encoder})
            groups.append({**group, "params": of_head, "lr": self.args.head_learning_rate})
        optimizer.param_groups[:] = [group for group in groups if group["params"]]
        return optimizer

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Counts operations; of a head alone none, since the library counts by tokens."""
        return 0 if "query_embedding" in inputs else super().floating_point_ops(inputs)

    def _get_train_sampler(self, train_dataset=None):
        if self._subsets is None:
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return BalancedSampler(self._subsets, seed)

    def _prepare(self, model, args, table: RewardTable, embeddings, labels: torch.Tensor) -> DistillationDataset:
        reward_labels = make_reward_labels(table, args) if args.reward_weight else None
        if args.freeze_encoder:
            return DistillationDataset(embeddings, table.rewards, labels, reward_labels=reward_labels)
        tokens = tokenize_table(model, table, self._directory.name)
        return DistillationDataset(tokens, table.rewards, labels, model.tokenizer, reward_labels)


def _embed(model: ZooterForRouting, args: DistillationArguments, table: RewardTable) -> torch.Tensor:
    batch_size = args.per_device_eval_batch_size
    return predict(model, table.queries, batch_size=batch_size, description="Embedding").embeddings


def routing_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Computes what a validation table says of a router; for [`~transformers.Trainer`]'s `compute_metrics`.

    Returns:
        `dict[str, float]`: Means over the queries: `reward` of the routed expert, `regret` against the best one,
        `top1`, how often the routed expert is (one of) the best. An expert without a reward is not chosen.
    """
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    rewards = torch.as_tensor(prediction.label_ids[1]).double()
    lost = regret(rewards, torch.as_tensor(logits).double())
    return {
        "reward": (oracle_rewards(rewards) - lost).nanmean().item(),
        "regret": lost.nanmean().item(),
        "top1": (lost[~lost.isnan()] <= 0).double().mean().item(),
    }


def add_lora(router: ZooterForRouting, args: DistillationArguments):
    """Gives the encoder's linear layers LoRA adapters; the head stays trainable as it is.

    Returns:
        `peft.PeftModel`: Around the router.
    """
    from peft import LoraConfig, get_peft_model

    linear = [
        f"encoder.{name}" for name, module in router.encoder.named_modules() if isinstance(module, torch.nn.Linear)
    ]
    config = LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha or 2 * args.lora_r,
        lora_dropout=args.lora_dropout,
        target_modules=linear,
        modules_to_save=["classifier", *(["reward_head"] if router.config.predict_rewards else [])],
    )
    return get_peft_model(router, config)
