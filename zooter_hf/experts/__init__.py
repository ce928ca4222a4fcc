"""Something that answers a query: a local model, a LoRA adapter on a shared base, a remote endpoint."""

from zooter_hf.experts.base import (
    Answer,
    Capabilities,
    Expert,
    ExpertError,
    GenerationSettings,
    Loadable,
    Message,
    Query,
    Usage,
    to_messages,
)
from zooter_hf.experts.endpoint import EndpointExpert
from zooter_hf.experts.factory import BACKENDS, make_expert
from zooter_hf.experts.files import load_experts


# What runs models in this process is loaded when it is first asked for.
_LOADED_ON_USE = {
    "AdapterExpert": "zooter_hf.experts.adapter",
    "TransformersExpert": "zooter_hf.experts.local",
    "answer_mixed": "zooter_hf.experts.adapter",
}


def __getattr__(name: str):
    if name not in _LOADED_ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LOADED_ON_USE[name]), name)


__all__ = [
    "BACKENDS",
    "AdapterExpert",
    "Answer",
    "Capabilities",
    "EndpointExpert",
    "Expert",
    "ExpertError",
    "GenerationSettings",
    "Loadable",
    "Message",
    "Query",
    "TransformersExpert",
    "Usage",
    "answer_mixed",
    "load_experts",
    "make_expert",
    "to_messages",
]
