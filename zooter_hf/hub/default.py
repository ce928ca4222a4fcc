"""The router that ships with the package."""

from pathlib import Path


DEFAULT_ROUTER = str(Path(__file__).parent / "default_router")
"""Folder of the embedded router: what `pipeline("zooter-routing")` uses without a model, and needs no network for."""
