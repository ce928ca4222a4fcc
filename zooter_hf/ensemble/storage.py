"""What an ensemble has besides its router, in the router's folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from zooter_hf.ensemble.settings import EnsembleSettings
from zooter_hf.modeling import ExpertSpec


ENSEMBLE_FILE = "ensemble_config.json"


def write_ensemble(folder: Path, settings: EnsembleSettings, added: Sequence[ExpertSpec]):
    """Writes the settings, and the experts that the router does not know.

    Args:
        folder: Of the router.
        settings: How the ensemble behaves.
        added: The experts.
    """
    values = {**settings.to_dict(), "added_experts": [spec.to_dict() for spec in added]}
    (folder / ENSEMBLE_FILE).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_stored(name: str, **hub: Any) -> tuple[EnsembleSettings, list[ExpertSpec]]:
    """Reads what [`write_ensemble`] wrote; the defaults for a router that was saved by itself.

    Args:
        name: Folder, or repository on the Hub.
        **hub: Revision, token and the like.

    Raises:
        ValueError: If the file cannot be right.
    """
    file = cached_file(name, ENSEMBLE_FILE, _raise_exceptions_for_missing_entries=False, **hub)
    if file is None:
        return EnsembleSettings(), []
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
        added = [ExpertSpec.from_value(each) for each in values.pop("added_experts", [])]
        return EnsembleSettings().changed(values), added
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} does not hold the settings of an ensemble: {error}") from error


def check_publishable(specs: Sequence[ExpertSpec]):
    """Checks that experts can be loaded by others.

    Raises:
        ValueError: If one is a folder on this machine; its path would be published, too.
    """
    for spec in specs:
        for name, source in (("model", spec.model), ("options.base_model", spec.options.get("base_model"))):
            if spec.backend in ("transformers", "adapter") and isinstance(source, str) and Path(source).is_dir():
                raise ValueError(
                    f"Expert {spec.name!r}: `{name}` is a folder on this machine, which nobody else could load. "
                    "Upload it and give its Hub id, or push the router alone: `ensemble.router.push_to_hub(...)`, "
                    "whose experts are to be changed then, too."
                )
