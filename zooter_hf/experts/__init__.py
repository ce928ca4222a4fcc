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


__all__ = [
    "BACKENDS",
    "Answer",
    "Capabilities",
    "EndpointExpert",
    "Expert",
    "ExpertError",
    "GenerationSettings",
    "Loadable",
    "Message",
    "Query",
    "Usage",
    "load_experts",
    "make_expert",
    "to_messages",
]
