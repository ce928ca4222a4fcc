"""Checkpoints of RouterDC (arXiv 2409.19886): the state dict of an encoder, and an embedding an expert."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from zooter_hf.conversion.checkpoints.experts import map_labels
from zooter_hf.conversion.checkpoints.sequence_classification import describe_origin, merge
from zooter_hf.conversion.checkpoints.verifying import refuse_differences, run
from zooter_hf.modeling import ZooterForRouting


ENCODER = "microsoft/mdeberta-v3-base"
MAX_TOKENS = 512
SIMILARITIES = {"cos": "cosine", "inner": "linear"}
_EMBEDDINGS, _BACKBONE = "embeddings.weight", "backbone."


def load(
    source: str,
    experts=None,
    *,
    encoder: str = ENCODER,
    similarity: str = "cos",
    temperature: float = 1.0,
    revision: str | None = None,
    token=None,
    **config,
) -> ZooterForRouting:
    """Loads a state dict that RouterDC saved as a router with the same logits.

    Args:
        source: The file, `best_model.pth` or `best_training_model.pth`. It is a pickle, and read as tensors alone.
        experts: The experts in the order of the embeddings, which is that of `scores` in the training data:
            `reward_tables.routerdc.experts(table)` reads it from there. The file does not name them.
        encoder: Folder or Hub id of the encoder that was trained, for its config and tokenizer; its weights come from
            the file.
        similarity: RouterDC's `similarity_function`: `"cos"` or `"inner"`.
        temperature: What similarities are divided by; RouterDC evaluates with 1.
        revision: Branch, tag or commit of the encoder on the Hub.
        token: Token for the Hub.
        config: Fields of [`ZooterConfig`] that the checkpoint says nothing of.

    Raises:
        OSError: If the file or the encoder is not there.
        ValueError: If the file holds anything but tensors, is no state dict of RouterDC, or does not fit the encoder
            or the experts.
    """
    if similarity not in SIMILARITIES:
        raise ValueError(f"`similarity` must be one of {list(SIMILARITIES)}, got {similarity!r}.")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"`temperature` must be positive and finite, got {temperature}.")
    embeddings, backbone_weights = _split(_read(Path(source)), source)
    if experts is None:
        raise ValueError(
            f"{source} has {len(embeddings)} expert embeddings and does not name the experts. Give them in the order "
            "of `scores` in the data it was trained on; on the command line as a file: --experts FILE."
        )
    expert_map = map_labels([str(index) for index in range(len(embeddings))], experts)
    backbone = _backbone(backbone_weights, embeddings, encoder, source, {"revision": revision, "token": token})
    tokenizer = AutoTokenizer.from_pretrained(encoder, revision=revision, token=token)
    router = ZooterForRouting.from_encoder(
        backbone,
        expert_map.experts,
        tokenizer=tokenizer,
        base_encoder=None if Path(encoder).exists() else encoder,
        **{
            "pooling": "cls",
            "head": SIMILARITIES[similarity],
            "outputs_per_expert": expert_map.outputs_per_expert,
            "max_query_tokens": min(MAX_TOKENS, backbone.config.max_position_embeddings),
            "head_share": 0.0,  # RouterDC's tokenizer cuts on the left
            "training": {"method": describe_origin(source, "RouterDC")},
            **config,
        },
    )
    ordered = embeddings[expert_map.order]
    with torch.no_grad():
        if similarity == "cos":
            router.classifier.expert_embeddings.copy_(ordered)
            router.classifier.log_temperature.fill_(temperature).log_()
        else:
            router.classifier.out_proj.weight.copy_(ordered / temperature)
            router.classifier.out_proj.bias.zero_()

    def forward(**inputs) -> torch.Tensor:
        state = backbone(**inputs).last_hidden_state[:, 0]
        scores = state @ embeddings.T
        if similarity == "cos":
            scores = scores / (state.norm(dim=1, keepdim=True) * embeddings.norm(dim=1))
        return scores / temperature

    expected = merge(run(tokenizer, forward, router.config.max_query_tokens), expert_map)
    refuse_differences(router, expected, source)
    return router


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise OSError(f"{path} is no file. A checkpoint of RouterDC is one file: best_model.pth.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the unpickler raise whatever it will
        raise ValueError(
            f"{path} is not read: it is damaged, or a pickle of more than tensors, which could run code of others. "
            "Save the `state_dict()` alone."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict, but {type(state).__name__}. Save the `state_dict()` alone.")
    return dict(state)


def _split(state: dict[str, torch.Tensor], source: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Takes a state dict apart: the expert embeddings, and the weights of the encoder."""
    unknown = [key for key in state if key != _EMBEDDINGS and not key.startswith(_BACKBONE)]
    if _EMBEDDINGS not in state or unknown or state[_EMBEDDINGS].ndim != 2:
        raise ValueError(
            f"{source} is no state dict of RouterDC, which has `{_EMBEDDINGS}` (experts, width) and the encoder's "
            f"weights as `{_BACKBONE}*`; it has {sorted(state)[:3]}, and unknown are {sorted(unknown)[:3]}."
        )
    weights = {key.removeprefix(_BACKBONE): value for key, value in state.items() if key != _EMBEDDINGS}
    # A constant that older versions of transformers saved.
    weights.pop("embeddings.position_ids", None)
    return state[_EMBEDDINGS].float(), weights


def _backbone(
    weights: dict[str, torch.Tensor], embeddings: torch.Tensor, encoder: str, source: str, hub: dict[str, Any]
) -> PreTrainedModel:
    backbone = AutoModel.from_config(AutoConfig.from_pretrained(encoder, **hub))
    there = backbone.state_dict()
    wrong = sorted(set(there) ^ set(weights))
    wrong += [key for key in there if key in weights and there[key].shape != weights[key].shape]
    if wrong:
        raise ValueError(
            f"The weights in {source} do not fit the encoder {encoder}: {len(wrong)} are missing, unknown or of "
            f"another shape, for instance {wrong[:3]}. Give the encoder that it was trained from: `encoder=...`."
        )
    backbone.load_state_dict(weights)
    if embeddings.shape[1] != backbone.config.hidden_size:
        raise ValueError(
            f"The expert embeddings in {source} have the width {embeddings.shape[1]}, the states of the encoder "
            f"{backbone.config.hidden_size}."
        )
    return backbone.float().eval()
