"""What the commands share: loading a router and its config."""

import os
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from zooter_hf.modeling import ZooterConfig


def quiet_loading():
    """Keeps progress bars of loading out of the terminal."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def resolve_router(router: str | None) -> str:
    """Returns the router to use, the embedded one by default.

    Raises:
        OSError: If `router` looks like a folder and is not there, before the Hub is asked for it.
    """
    from zooter_hf.hub import DEFAULT_ROUTER

    if router is None:
        return DEFAULT_ROUTER
    if router.startswith((".", "/", "~")) or router.count("/") > 1:
        path = os.path.expanduser(router)
        if not os.path.isdir(path):
            raise OSError(f"{router} is not a folder. Give a router's folder or its Hub id (owner/name).")
        return path
    return router


def load_config(router: str, revision: str | None = None) -> "ZooterConfig":
    """Loads a router's config.

    Raises:
        OSError: If there is no such folder or repository.
        ValueError: If it holds a model of another kind.
    """
    from transformers import AutoConfig

    import zooter_hf

    config = AutoConfig.from_pretrained(router, revision=revision)
    if not isinstance(config, zooter_hf.ZooterConfig):
        raise ValueError(f"{router} holds a model of type {config.model_type!r}, not a Zooter router.")
    return config
