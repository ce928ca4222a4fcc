"""Classifiers of transformers whose labels are models or tiers: encoder, head and tokenizer are carried over."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from zooter_hf.conversion.checkpoints.experts import ExpertMap, map_labels
from zooter_hf.conversion.checkpoints.verifying import refuse_differences, run
from zooter_hf.modeling import ZooterConfig, ZooterForRouting


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class HeadLayout:
    """Where the head of an architecture keeps its two layers, and what happens between them.

    Args:
        dense: The hidden layer.
        output: The layer that gives the logits.
        activation: Its name, or the field of the config that holds it.
        norm: The norm behind the activation, if there is one.
        pooling: `"cls"`, or the field of the config that holds it.
    """

    dense: str
    activation: str
    output: str = "classifier"
    norm: str | None = None
    pooling: str = "cls"


_ROBERTA = HeadLayout("classifier.dense", "tanh", output="classifier.out_proj")
_DEBERTA = HeadLayout("pooler.dense", "pooler_hidden_act")
HEADS = {
    "bert": HeadLayout("bert.pooler.dense", "tanh"),
    "camembert": _ROBERTA,
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA,
    "distilbert": HeadLayout("pre_classifier", "relu"),
    "electra": HeadLayout("classifier.dense", "gelu", output="classifier.out_proj"),
    "modernbert": HeadLayout("head.dense", "classifier_activation", norm="head.norm", pooling="classifier_pooling"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}


def load(source: str, experts=None, *, revision: str | None = None, token=None, **config) -> ZooterForRouting:
    """Loads a classifier as a router with the same logits; labels of the same expert are summed over.

    Args:
        source: A folder or a Hub id.
        experts: As [`zooter_hf.conversion.checkpoints.load`] takes them. By default the labels name the experts.
        revision: Branch, tag or commit on the Hub.
        token: Token for the Hub.
        config: Fields of [`ZooterConfig`] that the checkpoint says nothing of: `chat_context`, `max_query_tokens`, ...

    Raises:
        OSError: If the checkpoint is not there or has no safetensors weights.
        ValueError: If its head cannot be carried over exactly, or the experts do not fit its labels.
    """
    its_config = read_config(source, revision=revision, token=token)
    expert_map = map_labels([its_config.id2label[index] for index in range(its_config.num_labels)], experts)
    return convert(source, expert_map, revision=revision, token=token, **config)


def read_config(source: str, **hub) -> PreTrainedConfig:
    """Reads the config of a classifier.

    Raises:
        ValueError: If its architecture is not one whose head can be carried over.
    """
    config = AutoConfig.from_pretrained(source, **hub)
    if config.model_type not in HEADS:
        named = ", ".join(config.architectures or [])
        raise ValueError(
            f"{source} is of type {config.model_type!r}{f' ({named})' if named else ''}, whose classification head "
            f"cannot be carried over exactly. Supported are {', '.join(HEADS)}."
        )
    if sorted(config.id2label) != list(range(config.num_labels)):
        raise ValueError(f"{source} does not number its labels from 0 on: {config.id2label}.")
    if config.problem_type == "regression":
        raise ValueError(f"{source} is a regression, not a classifier: its outputs are no choice between experts.")
    if config.problem_type == "multi_label_classification":
        logger.warning(
            f"{source} was trained on several labels at a time. The logits, and so the ranking, are carried over; a "
            "router's probabilities are their softmax, not one sigmoid a label."
        )
    return config


def convert(source: str, expert_map: ExpertMap, *, revision=None, token=None, **config) -> ZooterForRouting:
    """Makes a router of a classifier, in float32, given what its labels stand for, and compares the two."""
    hub = {"revision": revision, "token": token}
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        source, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **hub
    )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"{source} is no trained classifier: its weights lack {missing}. Give a checkpoint that was saved as "
            f"{type(model).__name__}."
        )
    tokenizer = AutoTokenizer.from_pretrained(source, **hub)
    model.eval()
    layout, its_config = HEADS[model.config.model_type], model.config
    reading = reading_of(tokenizer, its_config)
    limit = config.get("max_query_tokens", reading["max_query_tokens"])
    # Before the encoder is taken out of it.
    expected = merge(run(tokenizer, lambda **inputs: model(**inputs).logits, limit), expert_map)
    dense, output = model.get_submodule(layout.dense), model.get_submodule(layout.output)
    norm = None if layout.norm is None else model.get_submodule(layout.norm)
    if norm is not None and norm.eps != nn.LayerNorm(1).eps:
        raise ValueError(f"{source} cannot be carried over exactly: the norm of its head has the epsilon {norm.eps}.")
    router = ZooterForRouting.from_encoder(
        model.base_model,
        expert_map.experts,
        tokenizer=tokenizer,
        **{
            "pooling": getattr(its_config, layout.pooling, layout.pooling),
            "head": "mlp",
            "head_hidden_size": dense.out_features,
            "head_activation": getattr(its_config, layout.activation, layout.activation),
            "head_norm": norm is not None,
            "outputs_per_expert": expert_map.outputs_per_expert,
            "training": {"method": describe_origin(source, type(model).__name__)},
            **reading,
            **config,
        },
    )
    head = router.classifier
    copy_layer(dense, head.dense)
    copy_layer(output, head.out_proj, expert_map.order)
    if norm is not None:
        copy_layer(norm, head.norm)
    refuse_differences(router, expected, source)
    return router


def reading_of(tokenizer: PreTrainedTokenizerBase, encoder_config: PreTrainedConfig) -> dict[str, Any]:
    """Returns the config fields that make a router cut long queries where the checkpoint's tokenizer does."""
    config = ZooterConfig(encoder_config=encoder_config, experts=["a", "b"])
    limits = [limit for limit in (tokenizer.model_max_length, config.max_encoder_tokens) if limit and limit < 1e6]
    return {
        "max_query_tokens": min(limits, default=config.max_query_tokens),
        "head_share": 0.0 if tokenizer.truncation_side == "left" else 1.0,
    }


def merge(logits: torch.Tensor, expert_map: ExpertMap) -> torch.Tensor:
    """Merges logits of shape `(batch, labels)` into one an expert, whose probability is the sum over its labels."""
    return torch.stack([logits[:, of_expert].logsumexp(dim=1) for of_expert in expert_map.labels], dim=1)


def copy_layer(source: nn.Module, target: nn.Module, rows: list[int] | None = None):
    """Copies weight and bias, in another order if `rows` says so; what has no bias gets one of zeros."""
    with torch.no_grad():
        target.weight.copy_(source.weight if rows is None else source.weight[rows])
        if source.bias is None:
            target.bias.zero_()
        else:
            target.bias.copy_(source.bias if rows is None else source.bias[rows])


def describe_origin(source: str, what: str) -> str:
    """Says where a router comes from, for its card; folders of this machine are nobody else's business."""
    origin = f"{source} ({what})" if not Path(source).exists() else f"a checkpoint of type {what}"
    return f"Not trained here: converted from {origin}, with the same logits."
