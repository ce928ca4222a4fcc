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


__all__ = [
    "Answer",
    "Capabilities",
    "Expert",
    "ExpertError",
    "GenerationSettings",
    "Loadable",
    "Message",
    "Query",
    "Usage",
    "to_messages",
]
