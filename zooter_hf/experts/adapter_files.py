"""What lies in the folder of a LoRA adapter, and whether it may go on a base that others use too."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import safe_open

from zooter_hf.experts.base import ExpertError
from zooter_hf.experts.loading import find_folder


CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
# What an adapter may bring along besides: the tokenizer and the chat template that it was trained with.
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*", "vocab*", "merges*")
# Ways to begin a training that leave the base as it is; the others (PiSSA, OLoRA, CorDA, LoftQ) change its weights.
HARMLESS_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class AdapterFiles:
    """A LoRA adapter on the disk.

    Args:
        folder: Where it lies.
        config: Its `adapter_config.json`.
        base_weights: Names of weights of the base that were saved along: PEFT does so where embeddings are adapted.
    """

    folder: Path
    config: dict[str, Any]
    base_weights: tuple[str, ...] = ()

    @property
    def has_tokenizer(self) -> bool:
        """Whether it brings its own tokenizer."""
        return (self.folder / TOKENIZER_CONFIG_FILE).is_file()

    @property
    def replaces_modules(self) -> bool:
        """Whether whole modules are replaced; while they are, PEFT mixes no adapters in a batch."""
        return bool(self.config.get("modules_to_save") or self.config.get("trainable_token_indices"))

    @property
    def mixes(self) -> bool:
        """Whether PEFT can run it beside other adapters in one batch."""
        return not (self.replaces_modules or self.config.get("use_dora") or self.config.get("target_parameters"))


def find_adapter(expert: str, source: str, revision: str | None) -> AdapterFiles:
    """Finds an adapter, fetches it from the Hub if need be, and checks what can be checked without its base.

    Args:
        expert: Name of the expert, for errors.
        source: Folder or Hub id.
        revision: Of the repository on the Hub.

    Raises:
        ExpertError: If it is not there, has no safetensors, is no LoRA, or changes the base itself.
    """
    folder = Path(find_folder(expert, "model", source))
    if not folder.is_dir():
        patterns = [CONFIG_FILE, WEIGHTS_FILE, *TOKENIZER_FILES]
        try:
            folder = Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise ExpertError(
                f"Expert {expert!r}: the adapter {source!r} is no folder here and could not be fetched from the Hub. "
                f"{error}"
            ) from error
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise ExpertError(
                f"Expert {expert!r}: the adapter {source!r} has no {file}. Save it with PEFT, as safetensors."
            )
    config = _read_config(expert, folder)
    return AdapterFiles(folder, config, _find_base_weights(expert, folder, config))


def _read_config(expert: str, folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExpertError(f"Expert {expert!r}: {CONFIG_FILE} of {str(folder)!r} is not JSON. {error}") from error

    def refuse(reason: str):
        raise ExpertError(f"Expert {expert!r}: the adapter {str(folder)!r} {reason}")

    if config.get("peft_type") != "LORA":
        refuse(f"is of the type {config.get('peft_type')!r}. Only LoRA adapters can share a base.")
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        refuse(f"is for the task {config['task_type']!r}, which does not write answers.")
    if config.get("bias", "none") != "none" or config.get("layer_replication"):
        refuse("changes the base itself (`bias` or `layer_replication`), which others share. Merge it into its base.")
    if config.get("init_lora_weights", True) not in HARMLESS_BEGINNINGS:
        refuse(
            f"began with {config['init_lora_weights']!r}, which changes the base itself. Convert it to a plain LoRA "
            "when saving it (`path_initial_model_for_weight_conversion`)."
        )
    if config.get("alora_invocation_tokens"):
        refuse("is an activated LoRA, which this back end does not run.")
    return config


def _find_base_weights(expert: str, folder: Path, config: dict[str, Any]) -> tuple[str, ...]:
    own = ("lora_", "trainable_tokens", *(f".{name}." for name in config.get("modules_to_save") or ()))
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
            return tuple(key for key in weights.keys() if not any(part in key for part in own))  # noqa: SIM118
    except Exception as error:  # the library has an error type of its own for files that are cut off
        raise ExpertError(f"Expert {expert!r}: {WEIGHTS_FILE} of {str(folder)!r} cannot be read. {error}") from error
