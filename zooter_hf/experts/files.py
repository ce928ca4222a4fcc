"""Experts from a file."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from zooter_hf.experts.factory import BACKENDS, make_expert
from zooter_hf.modeling import ExpertSpec


LOCAL_BACKENDS = ("transformers", "adapter")


def load_experts(path: str | Path) -> list[ExpertSpec]:
    """Reads the specs of experts that can answer from a YAML or JSON file.

    The file holds a list of specs, or a mapping with the key `experts`, such as the `config.json` of a router. Every
    entry needs `name`, `backend` and what the back end needs. Models and base models of adapters that are folders
    beside the file are found from anywhere.

    Args:
        path: Ends in `.yaml`, `.yml` or `.json`.

    Returns:
        The specs, in the order of the file. Nothing is loaded yet: see [`make_expert`].

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file or one of its entries cannot be right; names the file, the entry and the field.
    """
    path = Path(path)
    entries = _parse(path)
    if isinstance(entries, Mapping):
        if "experts" not in entries:
            raise ValueError(
                f"{path} holds a mapping with the keys {sorted(map(str, entries))[:20]}, but not `experts`. Give a "
                "list of experts, or a mapping with the key `experts`."
            )
        entries = entries["experts"]
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            f"{path} must hold a list of one or more experts, each a mapping with `name`, `backend` and `model`, got "
            f"{'an empty list' if entries == [] else type(entries).__name__}."
        )
    specs: list[ExpertSpec] = []
    first: dict[str, int] = {}
    for number, entry in enumerate(entries, start=1):
        spec = _spec(entry, f"{path}, entry {number}", path.parent)
        if spec.name in first:
            raise ValueError(
                f"{path}, entry {number}: the name {spec.name!r} is that of entry {first[spec.name]} already. Names "
                "must be unique."
            )
        first[spec.name] = number
        specs.append(spec)
    return specs


def _parse(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"{path} must end in .yaml, .yml or .json, so that it is clear how to read it.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text) if suffix == ".json" else yaml.safe_load(text)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text. Convert it first.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from None
    except yaml.YAMLError as error:
        # Its message shows the line, which may hold what is not meant to be shown.
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise ValueError(f"{path}{where} is not YAML: {problem}.") from None


def _spec(entry: Any, where: str, folder: Path) -> ExpertSpec:
    if not isinstance(entry, Mapping):
        given = f"just a name, {entry!r}" if isinstance(entry, str) else type(entry).__name__
        raise ValueError(f"{where} must be a mapping with `name`, `backend` and `model`, got {given}.")
    if "name" not in entry:
        raise ValueError(f"{where} has no `name`; its fields are {sorted(map(str, entry))}.")
    if entry.get("backend") is None:
        raise ValueError(f"{where} ({entry['name']!r}) has no `backend`. Give it one of {list(BACKENDS)}.")
    try:
        spec = ExpertSpec.from_value({str(name): value for name, value in entry.items()})
        if spec.backend in LOCAL_BACKENDS and isinstance(spec.model, str) and spec.model:
            spec = _find_folders(spec, folder)
        make_expert(spec)  # which checks what only its back end knows
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error
    return spec


def _find_folders(spec: ExpertSpec, folder: Path) -> ExpertSpec:
    """Says where models lie, seen from here, that are folders beside the file."""

    def find(name: str, model: str) -> str:
        if (folder / model).is_dir():
            return str(folder / model)
        if model.startswith(("./", "../", ".\\", "..\\")):
            raise ValueError(
                f"Expert {spec.name!r}: `{name}` is {model!r}, and there is no such folder beside the file."
            )
        return model

    base = spec.options.get("base_model")
    options = {"base_model": find("options.base_model", base)} if isinstance(base, str) and base else {}
    return replace(spec, model=find("model", spec.model), options={**spec.options, **options})
