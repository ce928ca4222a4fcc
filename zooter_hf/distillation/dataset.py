"""Training data as the trainer reads it: whole batches of queries, or of their embeddings, with targets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import DataCollatorWithPadding

from zooter_hf.modeling import ZooterForRouting, ZooterRoutingPipeline
from zooter_hf.rewards import RewardTable


if TYPE_CHECKING:
    from datasets import Dataset


class DistillationDataset(torch.utils.data.Dataset):
    """Queries with their targets.

    Args:
        inputs: Embeddings of shape `(queries, hidden_size)`, or a dataset with the column `input_ids`.
        rewards: Shape `(queries, experts)`, NaN where a reward is missing.
        labels: What the objective asks for, shape `(queries, experts)`.
        tokenizer: The tokenizer that pads; not needed for embeddings.
        reward_labels: What predicted rewards are to be, shape `(queries, experts)`, for a router that predicts them.
    """

    def __init__(
        self,
        inputs: "torch.Tensor | Dataset",
        rewards: torch.Tensor,
        labels: torch.Tensor,
        tokenizer=None,
        reward_labels: torch.Tensor | None = None,
    ):
        self.inputs = inputs
        self.rewards = rewards.float()
        self.labels = labels.float()
        self.reward_labels = None if reward_labels is None else reward_labels.float()
        self.tokenizer = tokenizer
        self._pad = None if tokenizer is None else DataCollatorWithPadding(tokenizer)

    def __len__(self) -> int:
        return len(self.rewards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one query without padding: samplers that sort by length ask for it."""
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Returns a batch, ready for the model: looking up one row after the other would take longer than the head."""
        index = torch.as_tensor(indices)
        if isinstance(self.inputs, torch.Tensor):
            inputs = {"query_embedding": self.inputs[index]}
        else:
            inputs = dict(self._pad([{"input_ids": ids} for ids in self.inputs[list(indices)]["input_ids"]]))
        rewards = self.rewards[index]
        if self.reward_labels is not None:
            inputs["reward_labels"] = self.reward_labels[index]
        return {**inputs, "labels": self.labels[index], "expert_mask": ~rewards.isnan(), "rewards": rewards}


def collate(batch: dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Passes on a batch as [`DistillationDataset`] made it."""
    if isinstance(batch, list):
        raise TypeError("This collator is for a DistillationDataset, which hands out whole batches.")
    return batch


def tokenize_table(router: ZooterForRouting, table: RewardTable, folder: str) -> "Dataset":
    """Tokenises the queries of a table as the pipeline will.

    Args:
        router: The router, with its tokenizer.
        table: The queries.
        folder: Where the result lies, memory-mapped; it must last as long as that is used.

    Returns:
        `datasets.Dataset`: With the column `input_ids`.
    """
    from datasets import Features, List, Value

    route = ZooterRoutingPipeline(model=router, tokenizer=router.tokenizer, device=router.device)
    return table.dataset.select_columns(["query"]).map(
        lambda rows: {"input_ids": route.tokenize_queries(rows["query"])},
        batched=True,
        remove_columns=["query"],
        features=Features({"input_ids": List(Value("int32"))}),
        cache_file_name=f"{folder}/tokens-{len(table)}-{id(table)}.arrow",
        load_from_cache_file=False,
        desc="Tokenising",
    )
