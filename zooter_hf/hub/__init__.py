"""Sharing: registration with transformers, the model card, the embedded default router."""

from zooter_hf.hub.card import write_model_card
from zooter_hf.hub.default import DEFAULT_ROUTER
from zooter_hf.hub.registration import register


__all__ = ["DEFAULT_ROUTER", "register", "write_model_card"]
