"""The settings of a distillation run."""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from zooter_hf.distillation.objectives import OBJECTIVES


PAPER_ENCODER = "microsoft/mdeberta-v3-base"
# Section 4.1 of the paper, which is silent on batch size, schedule, head and pooling.
PAPER_SETTINGS = {
    "tau": 1.0,
    "beta": 0.3,
    "average": "probabilities",
    "neighbours": 0,
    "standardize": False,
    "objective": "kl",
    "learning_rate": 1e-5,
    "num_train_epochs": 5,
    "weight_decay": 5e-7,
}

# What is trained decides how fast it may learn. The values for a frozen encoder and for a whole one come from
# cross-validation with MiniLM, on five to six thousand queries.
_BY_MODE: dict[str, dict[str, Any]] = {
    "frozen": {
        "learning_rate": 6e-3,
        "num_train_epochs": 40,
        "per_device_train_batch_size": 128,
        "weight_decay": 0.01,
    },
    "lora": {
        "learning_rate": 1e-3,
        "num_train_epochs": 5,
        "per_device_train_batch_size": 32,
        "weight_decay": 0.01,
    },
    "full": {
        "learning_rate": 5e-5,
        "head_learning_rate": 1e-3,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 32,
        "weight_decay": 0.01,
    },
}


@dataclass
class DistillationArguments(TrainingArguments):
    """Arguments of [`ZooterTrainer`]: those of [`~transformers.TrainingArguments`], and what distillation adds.

    The defaults are those that validated best with small encoders; `DistillationArguments.paper()` has the paper's.
    Learning rate, epochs, batch size and weight decay depend on what is trained unless they are given: with
    `freeze_encoder` 6e-3, 40, 128 and 0.01; with LoRA 1e-3, 5, 32 and 0.01; otherwise 5e-5 (1e-3 for the head), 3, 32
    and 0.01.

    Args:
        tau: Temperature of the targets `softmax(r / tau)`; or `"auto"`, fitted on a held-out part of the training
            table (see [`~zooter_hf.distillation.fit_tau`]).
        standardize: Whether rewards are brought to mean 0 and standard deviation 1 first, so that `tau` does not
            depend on the teacher's scale.
        beta: Weight of a query's own rewards against the means of its tags; 1 for no label enhancement, 0 for tags
            alone (section 3.3 of the paper).
        average: Whether `"rewards"` are averaged over a tag, or `"probabilities"`, as in the paper.
        leave_one_out: Whether a query's own rewards are left out of the means of its tags.
        shrinkage: With how many queries' weight the mean of all queries enters the mean of a tag.
        min_support: Tags that fewer queries carry are passed over.
        neighbours: How many queries most like a query, by their embeddings and among those that share a tag, have a
            say in its target beside the tags; 0 for none, as in the paper.
        neighbour_weight: The share of their mean beside that of the tags.
        objective: `"kl"`, `"cross_entropy"` (hard labels), `"bce"` or `"mse"` (per-expert rewards); see
            [`~zooter_hf.distillation.distillation_loss`].
        reward_weight: With what weight the squared error of predicted rewards, in their standard deviations, is added
            to the loss; 0 for a router that does not predict rewards.
        freeze_encoder: Whether the head alone is trained, on embeddings that are computed once.
        lora_r: Rank of the LoRA adapters of the encoder; none by default.
        lora_alpha: Scale of the adapters; twice the rank by default.
        lora_dropout: Dropout before the adapters.
        head_learning_rate: Learning rate of the head, where it differs from that of the encoder.
        balance_subsets: Whether queries are drawn so that every subset is seen equally often.
        early_stopping_patience: After how many evaluations without a lower regret on the validation table training
            stops; the best state is kept. Evaluation is once an epoch unless `eval_strategy` says otherwise.

    Raises:
        ValueError: If a value is out of its range, or two contradict each other.
    """

    tau: float | str = field(default=0.25, metadata={"help": "Temperature of the targets, or 'auto'."})
    standardize: bool = field(default=True, metadata={"help": "Bring rewards to mean 0 and deviation 1 first."})
    beta: float = field(default=0.1, metadata={"help": "Weight of a query's own rewards against its tags."})
    average: str = field(default="rewards", metadata={"help": "What is averaged over a tag."})
    leave_one_out: bool = field(default=False, metadata={"help": "Leave a query out of the means of its tags."})
    shrinkage: float = field(default=0.0, metadata={"help": "Weight of the general mean in a tag's, in queries."})
    min_support: int = field(default=1, metadata={"help": "Pass over tags that fewer queries carry."})
    neighbours: int = field(default=0, metadata={"help": "How many queries most like a query have a say."})
    neighbour_weight: float = field(default=0.5, metadata={"help": "Their share beside the tags."})
    objective: str = field(default="kl", metadata={"help": "kl, cross_entropy, bce or mse."})
    reward_weight: float = field(default=0.0, metadata={"help": "Weight of a head that predicts rewards."})
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the head alone, on cached embeddings."})
    lora_r: int | None = field(default=None, metadata={"help": "Rank of the LoRA adapters of the encoder."})
    lora_alpha: int | None = field(
        default=None, metadata={"help": "Scale of the adapters; twice the rank by default."}
    )
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout before the adapters."})
    head_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of the head."})
    balance_subsets: bool = field(default=False, metadata={"help": "See every subset equally often."})
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after so many evaluations without a lower validation regret."}
    )

    learning_rate: float | None = field(default=None, metadata={"help": "Peak learning rate."})
    num_train_epochs: float | None = field(default=None, metadata={"help": "Passes over the training table."})
    per_device_train_batch_size: int | None = field(default=None, metadata={"help": "Queries a step and device."})
    weight_decay: float | None = field(default=None, metadata={"help": "Weight decay."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Queries a step when evaluating."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up, or their share of all."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Not needed: batches hold what is used."})

    @classmethod
    def paper(cls, output_dir: str | None = None, **changes) -> "DistillationArguments":
        """Returns the paper's settings (section 4.1, for mDeBERTa-v3-base), with `changes`."""
        return cls(output_dir=output_dir, **{**PAPER_SETTINGS, **changes})

    @property
    def mode(self) -> str:
        """What is trained: `"frozen"` (the head alone), `"lora"` or `"full"`."""
        return "frozen" if self.freeze_encoder else "lora" if self.lora_r is not None else "full"

    @property
    def uses_neighbours(self) -> bool:
        """Whether the nearest queries have a say in the targets."""
        return bool(self.neighbours) and self.beta < 1 and self.objective != "cross_entropy"

    def __post_init__(self):
        self._check()
        settings = _BY_MODE[self.mode]
        if self.learning_rate is not None:
            settings = {**settings, "head_learning_rate": None}  # one that is given is meant for everything
        for name, value in settings.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False  # there is no device memory to be faster to; torch would warn
        # The trainer hands these to `compute_metrics`: regret is counted in rewards.
        self.label_names = self.label_names or ["labels", "rewards"]
        if self.early_stopping_patience is not None:
            if str(getattr(self.eval_strategy, "value", self.eval_strategy)) == "no":
                self.eval_strategy = "epoch"
            self.save_strategy, self.save_steps = self.eval_strategy, self.eval_steps or self.save_steps
            self.load_best_model_at_end = True
            self.metric_for_best_model, self.greater_is_better = "regret", False
        super().__post_init__()

    def _check(self):
        if isinstance(self.tau, str) and self.tau != "auto":
            try:
                self.tau = float(self.tau)
            except ValueError:
                raise ValueError(f"`tau` must be a positive number or 'auto', got {self.tau!r}.") from None
        if self.tau != "auto" and not self.tau > 0:
            raise ValueError(f"`tau` must be a positive number or 'auto', got {self.tau}.")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"`beta` must lie between 0 and 1, got {self.beta}.")
        if self.average not in ("rewards", "probabilities"):
            raise ValueError(f"`average` must be 'rewards' or 'probabilities', got {self.average!r}.")
        if not self.shrinkage >= 0:
            raise ValueError(f"`shrinkage` must not be negative, got {self.shrinkage}.")
        if self.min_support < 1:
            raise ValueError(f"`min_support` must be at least 1, got {self.min_support}.")
        if self.neighbours < 0:
            raise ValueError(f"`neighbours` must not be negative, got {self.neighbours}.")
        if not 0 <= self.neighbour_weight <= 1:
            raise ValueError(f"`neighbour_weight` must lie between 0 and 1, got {self.neighbour_weight}.")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"`objective` must be one of {OBJECTIVES}, got {self.objective!r}.")
        if not self.reward_weight >= 0:
            raise ValueError(f"`reward_weight` must not be negative, got {self.reward_weight}.")
        if self.freeze_encoder and self.lora_r is not None:
            raise ValueError("`freeze_encoder` trains the head alone and `lora_r` the encoder too. Give one of them.")
        if self.lora_r is not None and self.lora_r < 1:
            raise ValueError(f"`lora_r` must be positive, got {self.lora_r}.")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(f"`early_stopping_patience` must be positive, got {self.early_stopping_patience}.")
