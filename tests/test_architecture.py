"""Who may import whom, and how light the package is to import."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
PACKAGE_FOLDERS = {
    "modeling": ROOT / "modeling",
    "conversion": ROOT / "conversion",
    **{path.name: path for path in (ROOT / "zooter_hf").iterdir() if (path / "__init__.py").exists()},
}
MAY_IMPORT = {
    "modeling": set(),
    "conversion": {"modeling", "rewards"},
    "experts": {"modeling"},
    "rewards": {"experts", "modeling", "routing"},
    "distillation": {"modeling", "rewards", "routing", "evaluation"},
    "routing": {"modeling"},
    "calibration": {"modeling", "rewards", "routing", "evaluation"},
    "ensemble": {"experts", "rewards", "routing", "modeling"},
    "evaluation": {"rewards", "routing", "modeling"},
    "hub": {"modeling", "evaluation"},
}
# transformers itself is built on huggingface_hub, and its configs need the decorator that lives there.
MODELING_LIBRARIES = {"torch", "transformers", "huggingface_hub", *sys.stdlib_module_names}


def imports_of(path):
    """Yields (module, is_relative) of every import in a file, also of those within functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level > 0


@pytest.mark.parametrize("folder", sorted(set(PACKAGE_FOLDERS) - {"cli"}))
def test_folders_import_only_what_they_may(folder):
    for path in PACKAGE_FOLDERS[folder].rglob("*.py"):
        for module, relative in imports_of(path):
            if relative or not module.startswith("zooter_hf."):
                continue
            imported = module.split(".")[1]
            allowed = MAY_IMPORT[folder] | {folder}
            assert imported in allowed, f"{path.relative_to(ROOT)} imports {imported}; {folder} may import {allowed}"


def test_every_folder_has_a_rule():
    assert set(PACKAGE_FOLDERS) - {"cli"} <= set(MAY_IMPORT)


def test_the_code_that_travels_needs_nothing_else():
    for path in PACKAGE_FOLDERS["modeling"].glob("*.py"):
        for module, relative in imports_of(path):
            if relative:
                assert (path.parent / f"{module}.py").exists(), f"{path.name} imports {module}"
            else:
                assert module.split(".")[0] in MODELING_LIBRARIES, f"{path.name} imports {module}"


def test_packages_in_setup_cfg_are_those_that_exist():
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    existing = {"zooter_hf"}
    for name, folder in PACKAGE_FOLDERS.items():
        for path in folder.rglob("__init__.py"):
            parts = path.parent.relative_to(folder).parts
            existing.add(".".join(["zooter_hf", name, *parts]))
    assert listed == existing


HEAVY = ["datasets", "peft", "accelerate", "pandas", "sklearn", "matplotlib", "typer", "rich", "jinja2"]


def test_import_loads_no_heavy_library_and_asks_no_network():
    code = f"""
import sys, socket
import torch
from transformers import AutoModel, Pipeline
before = set(sys.modules)
def refuse(*args, **kwargs): raise AssertionError("network at import")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import zooter_hf
added = set(sys.modules) - before
print([name for name in {HEAVY!r} if name in added])
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "0"}
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
