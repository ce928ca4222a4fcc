"""Folders of sentence-transformers as encoders: pooling, norm and length are taken from them; the head is new."""

import json
from typing import Any

from transformers.utils import cached_file

from zooter_hf.modeling import ZooterForRouting


# What pooling of sentence-transformers is called here, by the old flags of its config and by its present names.
POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "cls": "cls",
    "mean": "mean",
}


def load(source: str, experts=None, **options) -> ZooterForRouting:
    """Loads a folder of sentence-transformers as a router with an untrained head; see [`load_encoder`]."""
    if not experts or isinstance(experts, dict):
        raise ValueError(
            f"{source} is an encoder, which knows no experts. Give those to route between, as a list; on the command "
            "line as a file: --experts FILE."
        )
    return load_encoder(source, experts, **options)


def load_encoder(source: str, experts, *, revision: str | None = None, token=None, **config) -> ZooterForRouting:
    """Starts a router on an encoder of sentence-transformers, so that its query embeddings are those of that library.

    Args:
        source: A folder or a Hub id.
        experts: The experts, in the order of the router's outputs.
        revision: Branch, tag or commit on the Hub.
        token: Token for the Hub.
        config: Further fields of [`ZooterConfig`]: `head`, ...; also those that are taken from the source, to
            override them: `pooling`, `normalize`, `max_query_tokens`.

    Returns:
        [`ZooterForRouting`]: In evaluation mode. The head is random: train it before use.

    Raises:
        OSError: If the encoder is not there, has no `modules.json` or no safetensors weights.
        ValueError: If it does something besides that a router does not: another pooling, a dense layer, a prompt.
    """
    hub = {"revision": revision, "token": token}
    source = str(source)
    modules = _read(source, "modules.json", required=True, **hub)
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(
            f"{source} is made of {', '.join(kinds)}. A router does Transformer, Pooling and, if it must, Normalize, "
            "in this order."
        )
    folder = modules[0]["path"]
    found: dict[str, Any] = {
        "pooling": _pooling(_read(source, "config.json", modules[1]["path"], **hub), source),
        "normalize": "Normalize" in kinds,
        "head_share": 1.0,
    }
    settings = _read(source, "sentence_bert_config.json", folder, **hub) or {}
    if settings.get("max_seq_length"):
        found["max_query_tokens"] = settings["max_seq_length"]
    prompts = _read(source, "config_sentence_transformers.json", **hub) or {}
    if prompt := (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name")):
        raise ValueError(f"{source} puts the prompt {prompt!r} before every text, which a router does not.")
    router = ZooterForRouting.from_encoder(
        source,
        experts,
        encoder_kwargs={**hub, **({"subfolder": folder} if folder else {})},
        **{**found, **config},
    )
    _refuse_lowering(router, settings, source)
    return router


def _read(source: str, name: str, folder: str = "", required: bool = False, **hub) -> Any:
    """Reads a JSON file of a folder or repository; `None` if it is not there and need not be."""
    try:
        path = cached_file(source, name, subfolder=folder, _raise_exceptions_for_missing_entries=required, **hub)
    except OSError as error:
        raise OSError(
            f"{source} is no encoder of sentence-transformers that can be read: {error} For a plain encoder use "
            "`ZooterForRouting.from_encoder`."
        ) from error
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _pooling(config: dict[str, Any] | None, source: str) -> str:
    if config is None:
        raise ValueError(f"{source} does not say how it pools: the folder of its Pooling has no config.json.")
    given = config.get("pooling_mode")
    modes = [given] if isinstance(given, str) else given or []
    modes += [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ValueError(f"{source} pools by {modes}. A router pools by the first token (cls) or the mean.")
    return POOLINGS[modes[0]]


def _refuse_lowering(router: ZooterForRouting, settings: dict[str, Any], source: str):
    """Refuses an encoder whose texts are lowered before they come to a tokenizer that would not do it itself."""
    text = "Explain ENTROPY to Émile"
    ids = router.tokenizer([text, text.lower()])["input_ids"]
    if settings.get("do_lower_case") and ids[0] != ids[1]:
        raise ValueError(f"{source} lowers texts before it tokenises them (do_lower_case), which a router does not.")
