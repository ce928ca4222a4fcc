"""From a spec to a causal language model in memory: its options are checked first, its folder is looked for next."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.quantizers import AutoQuantizationConfig
from transformers.utils import logging

from zooter_hf.experts.base import ExpertError
from zooter_hf.modeling import ExpertSpec


logger = logging.get_logger(__name__)

#: What decides how a model is loaded; two experts that agree on all of these share one model in memory.
LOADING_OPTIONS = (
    "attn_implementation",
    "device_map",
    "dtype",
    "gguf_file",
    "quantization_config",
    "revision",
    "trust_remote_code",
)
DEFAULT_BATCH_SIZE = 8


def check_spec(spec: ExpertSpec, known: Sequence[str]):
    """Checks what can be checked of a spec without loading anything.

    Args:
        spec: The spec of a local expert.
        known: The options that its back end knows.

    Raises:
        ValueError: If `model` is missing, an option is not known or has a value that cannot be right.
    """

    def refuse(name: str, expected: str):
        raise ValueError(f"Expert {spec.name!r}: the option `{name}` must be {expected}, got {spec.options[name]!r}.")

    if not spec.model:
        raise ValueError(f"Expert {spec.name!r}: `model` is missing. Give a folder or a Hub id.")
    if unknown := sorted(set(spec.options) - set(known)):
        raise ValueError(f"Expert {spec.name!r}: `options` has the unknown keys {unknown}. Known are {sorted(known)}.")
    for name, value in spec.options.items():
        if name == "batch_size":
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                refuse(name, "a positive number of queries")
        elif name == "trust_remote_code":
            if not isinstance(value, bool):
                refuse(name, "true or false")
        elif name == "quantization_config":
            methods = ("quant_method", "load_in_4bit", "load_in_8bit")
            if not isinstance(value, Mapping) or not any(value.get(method) for method in methods):
                refuse(name, f"a dict with one of {methods}")
        elif name == "device_map":
            if not isinstance(value, str | Mapping):
                refuse(name, 'a device, "auto" or a dict of modules and devices')
        elif not isinstance(value, str) or not value:
            refuse(name, "a string that is not empty")
        elif name == "dtype" and value != "auto" and not isinstance(getattr(torch, value, None), torch.dtype):
            refuse(name, '"auto" or the name of a torch dtype such as "bfloat16"')
    if {"gguf_file", "quantization_config"} <= set(spec.options):
        raise ValueError(
            f"Expert {spec.name!r}: `gguf_file` and `quantization_config` exclude each other: GGUF weights are loaded "
            "dequantised. Leave one out."
        )


def find_folder(expert: str, field: str, source: str) -> str:
    """Returns the full path of a folder, or a Hub id as it is.

    Raises:
        ExpertError: If it looks like a path and there is no such folder.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if source.startswith((".", "~")) or path.is_absolute() or source.count("/") > 1 or "\\" in source:
        raise ExpertError(f"Expert {expert!r}: `{field}` is {source!r}, but there is no such folder.")
    return source


def check_libraries(expert: str, options: Mapping[str, Any]):
    """Checks for libraries that are no dependency of the package.

    Raises:
        ImportError: If one is not installed.
    """
    if "gguf_file" in options and importlib.util.find_spec("gguf") is None:
        raise ImportError(f'Expert {expert!r}: the option `gguf_file` needs gguf: pip install "zooter-hf[gguf]"')


def load_tokenizer(expert: str, source: str, options: Mapping[str, Any]):
    """Loads a tokenizer from what [`find_folder`] returned.

    Raises:
        ExpertError: If that fails.
    """
    known = {name: options[name] for name in ("revision", "gguf_file") if name in options}
    try:
        return AutoTokenizer.from_pretrained(
            source, trust_remote_code=options.get("trust_remote_code", False), **known
        )
    except (OSError, ValueError, KeyError) as error:
        raise ExpertError(f"Expert {expert!r}: the tokenizer of {source!r} could not be loaded. {error}") from error


def estimate_bytes(expert: str, source: str, options: Mapping[str, Any]) -> int | None:
    """Works out the memory of a model from its config, without loading its weights.

    Args:
        expert: Name of the expert, for errors.
        source: Folder or Hub id, from [`find_folder`].
        options: Any of `LOADING_OPTIONS`.

    Returns:
        Bytes; `None` for weights that are to be quantised, or whose number the config does not tell.

    Raises:
        ExpertError: If there is no config.
    """
    if "quantization_config" in options:
        return None
    given = {name: options[name] for name in ("revision", "gguf_file") if name in options}
    trust = {"trust_remote_code": options.get("trust_remote_code", False)}
    try:
        config = AutoConfig.from_pretrained(source, **given, **trust)
    except (OSError, ValueError, KeyError) as error:
        raise ExpertError(f"Expert {expert!r}: the config of {source!r} could not be loaded. {error}") from error
    if getattr(config, "quantization_config", None) is not None:
        return None
    dtype = options.get("dtype", "auto")
    dtype = (getattr(config, "dtype", None) or torch.float32) if dtype == "auto" else getattr(torch, dtype)
    if "gguf_file" in options and "dtype" not in options:
        dtype = torch.float32  # which they are dequantised to
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, **trust)
    except Exception as error:  # code of whatever architecture, which has yet to show that it can be loaded at all
        logger.info(f"The memory of {source} cannot be estimated: {error}")
        return None
    return model.get_memory_footprint()


def load_model(expert: str, source: str, options: Mapping[str, Any]) -> PreTrainedModel:
    """Loads a causal language model from what [`find_folder`] returned, for inference.

    Args:
        expert: Name of the expert, for errors.
        source: Folder or Hub id.
        options: Any of `LOADING_OPTIONS`.

    Raises:
        ExpertError: If that fails: no such model, no safetensors, not a causal language model.
        ImportError: If a library is not installed that the quantisation needs.
    """
    given = {name: options[name] for name in LOADING_OPTIONS if name in options}
    given.setdefault("trust_remote_code", False)
    if "gguf_file" not in given:
        given["use_safetensors"] = True  # other formats can run code when they are opened
    if "quantization_config" in given:
        given["quantization_config"] = AutoQuantizationConfig.from_dict(dict(given["quantization_config"]))
    if "device_map" not in given and torch.accelerator.is_available():
        given["device_map"] = torch.accelerator.current_accelerator().type
    try:
        model = AutoModelForCausalLM.from_pretrained(source, **given)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        remedy = "" if "gguf_file" in given else " Weights are loaded from safetensors files only."
        raise ExpertError(f"Expert {expert!r}: the model {source!r} could not be loaded. {error}{remedy}") from error
    # What its makers recommend (a temperature, a repetition penalty) would make experts answer under different
    # settings, and unseen; of all that, only what ends an answer is kept.
    model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
    return model.eval()
