"""Readers of other people's routers and encoders; one file a format, all of one shape.

Each has `load(source, experts, **options)`, which returns a router that computes what the checkpoint computes, or
refuses. A new format is a new file, and its name in `FORMATS`.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from zooter_hf.conversion.checkpoints.experts import read_experts
from zooter_hf.conversion.checkpoints.sentence_transformers import load_encoder
from zooter_hf.modeling import ExpertSpec, ZooterForRouting


__all__ = ["FORMATS", "load", "load_encoder"]

FORMATS = ("routellm", "routerdc", "sentence_transformers", "sequence_classification")


def load(
    source: str | Path,
    format: str,
    experts: "str | Path | Mapping[str, Any] | Sequence[ExpertSpec | Mapping[str, Any] | str] | None" = None,
    **options,
) -> ZooterForRouting:
    """Loads a checkpoint of another format as a router, with its tokenizer, in evaluation mode.

    Args:
        source: A local folder or file, or a Hub id.
        format: One of `FORMATS`.
        experts: What the outputs of the checkpoint stand for: experts in the order of its labels, a mapping from
            labels to experts, or a YAML or JSON file that holds either. By default what the checkpoint itself says.
        options: Passed on to the format's `load`: `revision` and `token` for the Hub, what the format needs to know
            besides, and fields of [`ZooterConfig`].

    Raises:
        OSError: If the source is not there, or has no safetensors weights.
        ValueError: If there is no such format, the experts do not fit the labels, or the checkpoint cannot be carried
            over exactly.
    """
    if format not in FORMATS:
        raise ValueError(f"There is no reader for {format!r}. There are readers for {', '.join(FORMATS)}.")
    if isinstance(experts, str | Path):
        experts = read_experts(experts)
    path = Path(source).expanduser()
    if not path.exists() and (isinstance(source, Path) or str(source).startswith((".", "~", "/"))):
        raise OSError(f"{source} is not there. Give a folder or file that is, or a Hub id (owner/name).")
    source = str(path) if path.exists() else str(source)
    return import_module(f"{__name__}.{format}").load(source, experts, **options)
