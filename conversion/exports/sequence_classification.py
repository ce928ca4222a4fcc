"""A plain sequence classifier of transformers: whatever serves text classification serves it, without this package.

Possible where the architecture's own head can compute what the router's does. Calibration goes into the last layer, so
that the classifier's softmax gives the router's probabilities.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from zooter_hf.conversion.exports.checks import (
    EXAMPLES,
    ExportCheck,
    compare,
    logits_of,
    make_batches,
    router_logits,
)
from zooter_hf.modeling import ZooterForRouting


PRODUCES = ("config.json", "model.safetensors")
WHOLE = True
TOLERANCE = 1e-5
OTHERWISE = "Other ways to serve it: the router's own folder with `trust_remote_code=True`, or `onnx`."


@dataclass(frozen=True)
class Head:
    """The classification head of an architecture: a hidden layer and an output layer, on pooled states.

    Args:
        dense: Name of the hidden layer's module.
        out_proj: Name of the output layer's.
        activations: What the hidden layer can end in.
        settings: Given the router, the fields of the config that make the head what it should be.
        poolings: The router's poolings that it knows.
        norm: Name of the layer norm behind the activation, for an architecture that has one.
    """

    dense: str
    out_proj: str
    activations: tuple[str, ...] | None
    settings: Callable[[ZooterForRouting], dict[str, Any]] = lambda router: {}
    poolings: tuple[str, ...] = ("cls",)
    norm: str | None = None


_ROBERTA = Head("classifier.dense", "classifier.out_proj", ("tanh",))
HEADS = {
    "bert": Head("bert.pooler.dense", "classifier", ("tanh",)),
    "camembert": _ROBERTA,
    "deberta-v2": Head(
        "pooler.dense",
        "classifier",
        None,  # any, and none at all
        lambda router: {
            "pooler_hidden_act": router.config.head_activation if router.config.head == "mlp" else "linear",
            "pooler_hidden_size": router.config.hidden_size,
        },
    ),
    "distilbert": Head("pre_classifier", "classifier", ("relu",)),
    "electra": Head("classifier.dense", "classifier.out_proj", ("gelu",)),
    "modernbert": Head(
        "head.dense",
        "classifier",
        None,
        lambda router: {
            "classifier_pooling": router.config.pooling,
            "classifier_activation": router.config.head_activation,
            "classifier_bias": True,
            "norm_bias": True,
        },
        poolings=("cls", "mean"),
        norm="head.norm",
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}


def write(router: ZooterForRouting, folder: Path, queries: Sequence[Any] | None) -> ExportCheck:
    """Writes the classifier with its tokenizer.

    Raises:
        ValueError: If the architecture's own head cannot do what the router's does. Says what would have to differ.
    """
    if reasons := find_obstacles(router):
        raise ValueError(f"This router is no plain sequence classifier: {'; '.join(reasons)}. {OTHERWISE}")
    model = convert(router)
    model.save_pretrained(folder)
    tokenizer = copy.deepcopy(router.tokenizer)
    tokenizer.model_max_length = router.config.max_query_tokens
    tokenizer.save_pretrained(folder)

    written = AutoModelForSequenceClassification.from_pretrained(folder).eval().to(router.device)
    batches = make_batches(router, EXAMPLES if queries is None else queries)
    ours = router.probabilities(logits_of(router_logits(router.eval()), batches))[:, router.config.kept_experts]
    theirs = logits_of(router_logits(written), batches).softmax(dim=-1)
    return compare("sequence-classification", ours, theirs).require(1.0, TOLERANCE)


def find_obstacles(router: ZooterForRouting) -> list[str]:
    """Says why a router cannot be a plain classifier; nothing if it can."""
    config, kind = router.config, router.config.encoder_config.model_type
    if (head := HEADS.get(kind)) is None:
        return [f"the head of {kind!r} is not known here (known: {', '.join(HEADS)})"]
    reasons = []
    if config.pooling not in head.poolings:
        reasons.append(f"it has the pooling {config.pooling!r}, and {kind!r} knows {' and '.join(head.poolings)} only")
    if config.normalize:
        reasons.append("its query embedding is normalised")
    if config.outputs_per_expert:
        reasons.append("it has several outputs an expert")
    if config.head == "cosine" or (config.head == "linear" and kind != "deberta-v2"):
        wanted = "'mlp' or 'linear'" if kind == "deberta-v2" else "'mlp'"
        reasons.append(f"its head is {config.head!r}, and {kind!r} needs {wanted}")
    elif config.head == "mlp":
        if head.activations and config.head_activation not in head.activations:
            reasons.append(
                f"its activation is {config.head_activation!r}, and that of {kind!r} {head.activations[0]!r}"
            )
        if config.head_norm != (head.norm is not None):
            reasons.append(
                f"it has {'a' if config.head_norm else 'no'} norm in its head, and {kind!r} has it the other way"
            )
        width = config.head_hidden_size or config.hidden_size
        if width > config.hidden_size or (head.norm and width != config.hidden_size):
            reasons.append(f"its head is {width} wide, and that of {kind!r} {config.hidden_size}")
    return reasons


@torch.no_grad()
def convert(router: ZooterForRouting) -> PreTrainedModel:
    """Makes the classifier of a router that has no obstacles; experts that were removed are left out."""
    config = copy.deepcopy(router.config.encoder_config)
    head = HEADS[config.model_type]
    names = [router.expert_names[index] for index in router.config.kept_experts]
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    for name, value in head.settings(router).items():
        setattr(config, name, value)
    model = AutoModelForSequenceClassification.from_config(config, dtype=router.dtype)
    encoder = router.encoder.state_dict()
    missing, unexpected = model.base_model.load_state_dict(encoder, strict=False)
    if unexpected or any(not name.endswith("bias") and "pooler" not in name for name in missing):
        raise ValueError(f"The encoder does not fit {type(model).__name__}: {[*missing, *unexpected]}. {OTHERWISE}")
    for name in missing:  # norms that get a bias because the head's has one
        model.base_model.get_parameter(name).zero_()

    ours, dense = router.classifier, model.get_submodule(head.dense)
    dense.weight.zero_()
    dense.bias.zero_()
    if router.config.head == "linear":
        dense.weight.fill_diagonal_(1.0)
    else:  # where the router's hidden layer is narrower, the rest is read by nobody
        dense.weight[: ours.dense.out_features] = ours.dense.weight
        dense.bias[: ours.dense.out_features] = ours.dense.bias
    if head.norm:
        model.get_submodule(head.norm).load_state_dict(ours.norm.state_dict())
        model.get_submodule(head.norm).eps = ours.norm.eps
    _calibrated_outputs(router, model.get_submodule(head.out_proj))
    return model.eval()


def _calibrated_outputs(router: ZooterForRouting, target: nn.Linear):
    """Fills the output layer so that its softmax is the router's calibrated one."""
    config, ours = router.config, router.classifier.out_proj
    scale = ours.weight.new_tensor(config.calibration_scale or [1.0] * len(config.experts)) / config.temperature
    shift = ours.weight.new_tensor(config.calibration_bias or [0.0] * len(config.experts)) / config.temperature
    kept = config.kept_experts
    target.weight.zero_()
    target.weight[:, : ours.in_features] = (ours.weight * scale.unsqueeze(1))[kept]
    target.bias.copy_((ours.bias * scale + shift)[kept])
