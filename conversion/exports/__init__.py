"""Routers in other people's formats; one file a format, all of one shape.

Each has `PRODUCES`, the files that make the format, relative to the target; `WHOLE`, whether the target is a model of
its own and not a router's folder that gets more files; and `write(router, folder, queries, **options)`, which writes
them into a folder and returns the [`ExportCheck`] of what it wrote against the router. A new format is a new file, and
its name in `FORMATS`.
"""

import shutil
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from zooter_hf.conversion.exports.checks import ExportCheck
from zooter_hf.modeling import ZooterForRouting


FORMATS = ("sequence-classification", "merged", "onnx", "onnx-int8", "torch-export")


def export(
    router: ZooterForRouting,
    target: str | Path,
    format: str,
    *,
    queries: Sequence[Any] | None = None,
    overwrite: bool = False,
    **options,
) -> ExportCheck:
    """Writes a router in another format, and compares what was written with the router.

    Args:
        router: The router, with its tokenizer; it stays as it is.
        target: Folder. For `"onnx"`, `"onnx-int8"` and `"torch-export"` the router's own, where its files join the
            others; the router is saved there first if nothing is. For the others a new one.
        format: One of `FORMATS`.
        queries: Queries to compare on, and to calibrate on where the format needs it. A few of the package's own by
            default; `"onnx-int8"` needs some hundred real ones.
        overwrite: Whether files of that format that are there may be replaced.
        options: Passed on to the format's `write`.

    Returns:
        [`ExportCheck`]: How close the export is to the router.

    Raises:
        FileExistsError: If the target is there. Nothing is changed.
        ValueError: If there is no such format, the format cannot hold this router, the folder holds another router,
            or the export is further from the router than the format allows; nothing is left behind.
    """
    if format not in FORMATS:
        raise ValueError(f"There is no export {format!r}. There are {', '.join(FORMATS)}.")
    if router.tokenizer is None:
        raise ValueError("The router has no tokenizer. Set `router.tokenizer`.")
    module = import_module(f"{__name__}.{format.replace('-', '_')}")
    target = Path(target).expanduser()
    _check_target(router, target, module, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as staging:
        folder = Path(staging, "export")
        folder.mkdir()
        if not module.WHOLE and not (target / "config.json").exists():
            router.save_pretrained(folder)
        check = module.write(router, folder, queries, **options)
        if module.WHOLE and target.is_dir():
            shutil.rmtree(target)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                place = target / path.relative_to(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
    return check


def _check_target(router: ZooterForRouting, target: Path, module, overwrite: bool):
    """Raises an error if the export must not be written there."""
    if target.is_file():
        raise FileExistsError(f"{target} is a file. Give a folder.")
    if module.WHOLE:
        own = router.config.name_or_path
        if own and target.exists() and target.resolve() == Path(own).expanduser().resolve():
            raise FileExistsError(f"{target} is the folder of the router itself. Give another one.")
        there = [target] if target.is_dir() and any(target.iterdir()) else []
    else:
        there = [path for name in module.PRODUCES if (path := target / name).exists()]
        if (target / "config.json").exists():
            config = type(router.config).from_pretrained(target)
            if config.expert_names != router.expert_names:
                raise ValueError(
                    f"{target} holds a router for {config.expert_names}, not for {router.expert_names}. Give the "
                    "folder of this router, or a new one."
                )
    if there and not overwrite:
        raise FileExistsError(f"{there[0]} is there already. Give another folder, or pass `overwrite=True`.")


__all__ = ["FORMATS", "ExportCheck", "export"]
