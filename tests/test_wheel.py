"""The built wheel, installed into an empty environment, imports and routes from another folder."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import torch


ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build leaves traces in its tree
    source.mkdir()
    for name in ("modeling", "conversion", "zooter_hf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    run = subprocess.run(build, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return next(folder.glob("*.whl"))


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "zooter_hf/py.typed",
        "zooter_hf/modeling/modeling_zooter.py",
        "zooter_hf/conversion/reward_tables/llmrouter.py",
        "zooter_hf/hub/default_router/model.safetensors",
        "zooter_hf/hub/card_template.md",
        "zooter_hf/cli/example_queries.jsonl",
    ):
        assert needed in names, needed
    tops = {name.split("/")[0] for name in names}
    assert all(top == "zooter_hf" or top.endswith(".dist-info") for top in tops), tops


def test_wheel_routes_in_an_empty_environment(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True, capture_output=True
    )
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    # The libraries that it needs, from where this test runs; the package itself is not there but in its own place.
    # (A path file would run the finder of an editable install; PYTHONPATH does not.)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PYTHONPATH": os.path.dirname(os.path.dirname(torch.__file__)),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
    }
    code = (
        "import zooter_hf, zooter_hf.modeling, zooter_hf.conversion.reward_tables\n"
        "from transformers import pipeline\n"
        "print(zooter_hf.__file__, zooter_hf.modeling.__file__)\n"
        "print(pipeline('zooter-routing')('What is 17 * 23?')[0]['label'])\n"
    )
    for folder in (tmp_path, ROOT):  # also from inside a clone, where the bare folder comes first
        run = subprocess.run([python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        files, label = run.stdout.strip().splitlines()
        assert label
        assert str(site) in files
    command = subprocess.run(
        [tmp_path / "env" / "bin" / "zooter", "route", "--json", "What is 17 * 23?"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert command.returncode == 0, command.stderr
