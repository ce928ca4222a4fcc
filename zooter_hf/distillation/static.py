"""A student without attention: a bag of token vectors and a head, for microseconds a query.

Its encoder is a BERT of no layers, so that it is a router like any other: saved, pushed, exported and routed with in
the same way. What order of words and context tell is lost; what the words tell is kept.
"""

import math
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BertConfig, BertModel, PrinterCallback, set_seed
from transformers.utils import logging

from zooter_hf.distillation.arguments import DistillationArguments
from zooter_hf.distillation.labels import make_labels
from zooter_hf.distillation.trainer import ZooterTrainer
from zooter_hf.modeling import ZooterForRouting, ZooterRoutingPipeline
from zooter_hf.rewards import RewardTable
from zooter_hf.rewards.checks import check_experts
from zooter_hf.routing import predict


# Of smooth inverse frequency (Arora et al., 2017): tokens rarer than this share count in full.
SIF = 1e-3
STATIC_ARGUMENTS = {
    "learning_rate": 2e-3,
    "num_train_epochs": 20,
    "per_device_train_batch_size": 64,
    "weight_decay": 0.01,
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
}


def distill_static(
    router: ZooterForRouting,
    queries: Sequence[Any],
    *,
    table: RewardTable | None = None,
    teacher_weight: float = 0.5,
    hidden_size: int | None = None,
    seed: int = 0,
    **arguments,
) -> ZooterForRouting:
    """Distils a trained router into one of the same experts and tokenizer, and without attention.

    Args:
        router: The teacher, with its tokenizer.
        queries: What the student learns on: queries like those that will come. They need no rewards.
        table: Rewards of queries, if there are any; they are learnt from beside the teacher.
        teacher_weight: The share of the teacher's probabilities in the targets of the table's queries, beside those
            of the rewards.
        hidden_size: Length of the token vectors, at most that of the teacher's embeddings; 256 or that by default.
        seed: Of the student's head and of the order of the queries.
        arguments: Of [`DistillationArguments`], where they differ from `STATIC_ARGUMENTS`; `tau`, `beta` and the like
            make the targets of the table.

    Returns:
        [`ZooterForRouting`]: It has learnt the teacher's calibrated probabilities, and needs no calibration of its
        own as far as it follows the teacher. Experts that were removed from the teacher are removed from it.

    Raises:
        ValueError: If there is no query, the table has other experts, or `hidden_size` is too large.
    """
    if not queries and table is None:
        raise ValueError("There is nothing to learn on: give `queries`, a `table`, or both.")
    hidden_size = min(256, router.config.hidden_size) if hidden_size is None else hidden_size
    if not 8 <= hidden_size <= router.config.hidden_size:
        raise ValueError(
            f"`hidden_size` must lie between 8 and {router.config.hidden_size}, the teacher's, got {hidden_size}."
        )
    if table is not None:
        remedy = "`table.select_experts(router.expert_names)`"
        check_experts("The router", router.expert_names, "the table", table.expert_names, remedy)
    texts = [*queries, *(() if table is None else table.queries)]
    predictions = predict(router, texts, description="Asking the teacher")
    targets = _calibrated(router, predictions.logits)
    with tempfile.TemporaryDirectory() as folder:
        settings = DistillationArguments(folder, seed=seed, **{**STATIC_ARGUMENTS, **arguments})
        if table is not None:
            rewarded = make_labels(table, settings, 1.0 if settings.tau == "auto" else settings.tau)
            of_table = targets[len(queries) :]
            targets[len(queries) :] = teacher_weight * of_table + (1 - teacher_weight) * rewarded
        set_seed(seed)
        student = make_static(router, texts, hidden_size)
        # Rewards whose softmax is the target: the trainer needs to know of no other kind of table.
        rows = [
            {"query": text, "rewards": dict(zip(router.expert_names, row, strict=True))}
            for text, row in zip(texts, targets.clamp(min=1e-9).log().tolist(), strict=True)
        ]
        settings.tau, settings.beta, settings.standardize, settings.objective = 1.0, 1.0, False, "kl"
        settings.neighbours = 0
        trainer = ZooterTrainer(student, settings, RewardTable.from_rows(rows, router.config.experts))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        student = trainer.finish()
    student.config.removed_experts = router.config.removed_experts
    return student


def _calibrated(router: ZooterForRouting, logits: torch.Tensor) -> torch.Tensor:
    """Returns calibrated probabilities of shape `(queries, experts)`, also of experts that have been removed."""
    config = router.config
    scale = logits.new_tensor(config.calibration_scale or [1.0] * len(config.experts))
    shift = logits.new_tensor(config.calibration_bias or [0.0] * len(config.experts))
    return ((logits * scale + shift) / config.temperature).softmax(dim=-1)


def make_static(router: ZooterForRouting, texts: Sequence[Any], hidden_size: int) -> ZooterForRouting:
    """Makes an untrained student: what the teacher makes of each token alone, in its main directions, and a new head.

    Args:
        router: The teacher.
        texts: Queries, for how frequent tokens are: frequent ones weigh less.
        hidden_size: Length of the token vectors.
    """
    config = router.config
    vectors, weights = token_vectors(router), token_weights(router, texts)
    encoder = BertModel(
        BertConfig(
            vocab_size=len(vectors),
            hidden_size=hidden_size,
            num_hidden_layers=0,
            num_attention_heads=1,
            intermediate_size=1,
            max_position_embeddings=config.max_query_tokens,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            pad_token_id=router.tokenizer.pad_token_id or 0,
        ),
        add_pooling_layer=False,
    )
    embeddings = encoder.embeddings
    with torch.no_grad():
        embeddings.word_embeddings.weight.copy_(
            _weighted(_main_directions(vectors, weights, hidden_size - 2), weights)
        )
        for other in (embeddings.position_embeddings, embeddings.token_type_embeddings):
            other.weight.zero_()
            other.weight.requires_grad_(False)
    return ZooterForRouting.from_encoder(
        encoder,
        experts=config.experts,
        tokenizer=router.tokenizer,
        base_encoder=config.base_encoder,
        head="mlp",
        head_hidden_size=256,
        head_dropout=0.2,
        pooling="mean",
        max_query_tokens=config.max_query_tokens,
        chat_context=config.chat_context,
        head_share=config.head_share,
    )


@torch.inference_mode()
def token_vectors(router: ZooterForRouting, batch_size: int = 512) -> torch.Tensor:
    """Returns the query embeddings of every token alone, between the tokenizer's special tokens.

    Returns:
        `torch.Tensor` of shape `(vocabulary, hidden_size)`.
    """
    route = ZooterRoutingPipeline(model=router.eval(), tokenizer=router.tokenizer, device=router.device)
    frame = route.tokenize_queries(["a"])[0]
    leading, trailing = frame[: route._leading], frame[len(frame) - route._trailing :]
    ids = torch.arange(router.config.encoder_config.vocab_size)
    vectors = torch.empty(len(ids), router.config.hidden_size)
    for batch in logging.tqdm(ids.split(batch_size), desc="Token vectors", unit="batch"):
        before, after = (torch.tensor(part).repeat(len(batch), 1).long() for part in (leading, trailing))
        input_ids = torch.cat([before, batch.unsqueeze(1), after], dim=1).to(router.device)
        mask = torch.ones_like(input_ids)
        vectors[batch] = router(input_ids=input_ids, attention_mask=mask).query_embedding.float().cpu()
    return vectors


def token_weights(router: ZooterForRouting, texts: Sequence[Any]) -> torch.Tensor:
    """Returns weights by smooth inverse frequency, of shape `(vocabulary,)`, 1 for a token that does not occur."""
    route = ZooterRoutingPipeline(model=router, tokenizer=router.tokenizer, device=router.device)
    ids = torch.tensor([token for tokens in route.tokenize_queries(texts) for token in tokens])
    share = torch.bincount(ids, minlength=router.config.encoder_config.vocab_size) / len(ids)
    return SIF / (SIF + share)


def _main_directions(vectors: torch.Tensor, weights: torch.Tensor, size: int) -> torch.Tensor:
    """Projects vectors on the directions in which they differ most, common tokens counting less."""
    centred = vectors - (weights @ vectors) / weights.sum()
    _, directions = torch.linalg.eigh(centred.T @ (centred * weights.unsqueeze(1)))
    return centred @ directions[:, -size:]


def _weighted(vectors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Gives vectors their weights in a way that outlasts BERT's layer norm, which makes all equally long.

    What is missing in length goes into two more channels, of opposite sign, that are the same for all tokens.
    """
    size = vectors.shape[1] + 2
    content = torch.nn.functional.normalize(vectors, dim=-1) * (weights * math.sqrt(size)).unsqueeze(1)
    rest = (size * (1 - weights**2) / 2).clamp(min=0).sqrt().unsqueeze(1)
    return torch.cat([content, rest, -rest], dim=1)
