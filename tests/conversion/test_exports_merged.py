"""Adapters merged into plain weights."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.conftest import QUERIES
from zooter_hf import ZooterForRouting
from zooter_hf.conversion.exports import export


CONFIG = LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["classifier"])


@pytest.fixture
def adapted(make_router):
    torch.manual_seed(1)
    model = get_peft_model(make_router(head="mlp"), CONFIG).eval()
    for name, parameter in model.named_parameters():
        if "lora" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_a_merged_router_says_the_same_without_peft(adapted, make_router, tmp_path):
    check = export(adapted, tmp_path / "out", "merged", queries=QUERIES)
    assert check.agreement == 1 and check.largest_difference < 1e-5
    merged = ZooterForRouting.from_pretrained(tmp_path / "out")
    names = set(merged.state_dict())
    assert names == set(make_router(head="mlp").state_dict())
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "zooter"
    assert any("lora" in name for name, _ in adapted.named_parameters())  # the router itself stays as it is


def test_an_adapter_that_a_router_loaded_itself(adapted, make_router, tmp_path):
    adapted.save_pretrained(tmp_path / "adapter")
    router = make_router(head="mlp")
    router.load_adapter(str(tmp_path / "adapter"))
    export(router, tmp_path / "out", "merged", queries=QUERIES)
    merged = ZooterForRouting.from_pretrained(tmp_path / "out")
    ids = torch.tensor([[2, 7, 9, 3]])
    torch.testing.assert_close(merged(input_ids=ids).logits, adapted(input_ids=ids).logits, atol=1e-4, rtol=1e-4)
