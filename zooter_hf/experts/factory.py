"""From the spec of an expert to the expert."""

from importlib import import_module

from zooter_hf.experts.base import Expert
from zooter_hf.modeling import ExpertSpec


# Modules are loaded when an expert of theirs is made: routing, and experts of other kinds, do without.
BACKENDS = {
    "transformers": ("zooter_hf.experts.local", "TransformersExpert"),
    "adapter": ("zooter_hf.experts.adapter", "AdapterExpert"),
    "endpoint": ("zooter_hf.experts.endpoint", "EndpointExpert"),
}


def make_expert(spec: ExpertSpec) -> Expert:
    """Makes the expert that a spec describes; nothing is loaded yet, and no server is asked.

    Args:
        spec: With its `backend`, and what that needs.

    Raises:
        ValueError: If the spec has no back end, lacks a field that it needs, or has an option that it does not know.
    """
    if spec.backend is None:
        raise ValueError(
            f"Expert {spec.name!r} has no `backend`, and cannot answer. Give it one of {list(BACKENDS)}: a model of "
            "its own, a LoRA adapter on a shared base, or a server that speaks the OpenAI chat API."
        )
    module, name = BACKENDS[spec.backend]
    return getattr(import_module(module), name)(spec)
