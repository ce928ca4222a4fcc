import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel, pipeline

from tests.conftest import QUERIES


TARGETS = {"bert": ["query", "value"], "deberta-v2": ["query_proj", "value_proj"], "modernbert": ["Wqkv"]}


@pytest.fixture(params=list(TARGETS))
def trained(request, make_router, tokenizer, tmp_path):
    """A saved base router, and a LoRA model on it whose every trained weight has moved."""
    base = tmp_path / "base"
    make_router(request.param, head_dropout=0.0).save_pretrained(base)
    config = LoraConfig(r=2, target_modules=TARGETS[request.param], modules_to_save=["classifier"])
    model = get_peft_model(AutoModel.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name or "modules_to_save" in name), name
    inputs = tokenizer(QUERIES, padding=True, return_tensors="pt", return_token_type_ids=False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        model(**inputs, labels=torch.tensor([[0.8, 0.1, 0.1]] * len(QUERIES))).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        logits = model(**inputs).logits
        assert not torch.allclose(logits, AutoModel.from_pretrained(base)(**inputs).logits, atol=1e-3)
    return base, model, inputs, logits


def test_adapter_loads_back_every_way(trained, tmp_path):
    base, model, inputs, logits = trained
    model.save_pretrained(tmp_path / "adapter")
    assert not list((tmp_path / "adapter").glob("model*.safetensors")), "an adapter-only checkpoint"
    router = AutoModel.from_pretrained(base)
    router.load_adapter(str(tmp_path / "adapter"))
    loaded = {
        "PeftModel": PeftModel.from_pretrained(AutoModel.from_pretrained(base), tmp_path / "adapter").eval(),
        "AutoModel": AutoModel.from_pretrained(tmp_path / "adapter"),
        "load_adapter": router.eval(),
    }
    for name, again in loaded.items():
        with torch.no_grad():
            torch.testing.assert_close(again(**inputs).logits, logits, msg=lambda m, name=name: f"{name}: {m}")


def test_a_router_with_a_loaded_adapter_saves_the_adapter_alone(trained, tmp_path):
    base, model, inputs, logits = trained
    model.save_pretrained(tmp_path / "adapter")
    router = AutoModel.from_pretrained(base)
    router.load_adapter(str(tmp_path / "adapter"))
    router.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "again" / "model.safetensors").exists()
    with torch.no_grad():
        torch.testing.assert_close(AutoModel.from_pretrained(tmp_path / "again")(**inputs).logits, logits)


def test_merged_router_is_a_full_checkpoint_with_equal_outputs(trained, tmp_path):
    _, model, inputs, logits = trained
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    assert not list((tmp_path / "merged").glob("adapter*"))
    with torch.no_grad():
        loaded = AutoModel.from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(loaded(**inputs).logits, logits, atol=1e-5, rtol=1e-4)
    assert len(pipeline("zooter-routing", model=str(tmp_path / "merged"))(QUERIES)) == len(QUERIES)


def test_pickled_adapters_are_refused(trained, tmp_path):
    base, model, _, _ = trained
    folder = tmp_path / "pickled"
    model.save_pretrained(folder)
    from safetensors.torch import load_file

    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors only"):
        AutoModel.from_pretrained(base).load_adapter(str(folder))
    with pytest.raises(OSError, match="safetensors only"):
        AutoModel.from_pretrained(folder)
