import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from tests.conftest import EXPERTS, QUERIES
from zooter_hf import ZooterForRouting


def test_auto_classes_load_the_router(saved_router):
    for auto_class in (AutoModel, AutoModelForSequenceClassification, ZooterForRouting):
        router = auto_class.from_pretrained(saved_router)
        assert type(router) is ZooterForRouting
        assert router.config.experts == EXPERTS
        assert not router.training


def test_installed_code_goes_before_the_checkpoints(saved_router):
    router = AutoModel.from_pretrained(saved_router, trust_remote_code=True)
    assert type(router) is ZooterForRouting


def test_pickles_are_never_loaded(saved_router, make_router, tmp_path):
    router = make_router(head="mlp")
    router.save_pretrained(tmp_path / "pickled")
    torch.save(load_file(tmp_path / "pickled" / "model.safetensors"), tmp_path / "pickled" / "pytorch_model.bin")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        AutoModel.from_pretrained(tmp_path / "pickled")
    for argument in ("use_safetensors", "weights_only"):
        with pytest.raises(ValueError, match="never from a pickle"):
            AutoModel.from_pretrained(saved_router, **{argument: False})

    encoder = tmp_path / "encoder"
    router.encoder.save_pretrained(encoder)
    router.tokenizer.save_pretrained(encoder)
    torch.save(load_file(encoder / "model.safetensors"), encoder / "pytorch_model.bin")
    (encoder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        ZooterForRouting.from_encoder(encoder, experts=["a", "b"])


def test_saving_writes_the_tokenizer_and_warns_without_one(saved_router, tmp_path, caplog):
    router = AutoModel.from_pretrained(saved_router)
    router.save_pretrained(tmp_path / "again")
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "again")(QUERIES)["input_ids"]
        == (AutoTokenizer.from_pretrained(saved_router)(QUERIES)["input_ids"])
    )
    nameless = ZooterForRouting(router.config.__class__.from_dict(router.config.to_dict() | {"_name_or_path": ""}))
    nameless.save_pretrained(tmp_path / "bare")
    assert "router.tokenizer" in caplog.text


def test_pipeline_saves_what_it_loads(saved_router, tmp_path):
    route = pipeline("zooter-routing", model=str(saved_router))
    route.save_pretrained(tmp_path)
    assert pipeline("zooter-routing", model=str(tmp_path))(QUERIES) == route(QUERIES)


def test_saved_files_name_no_folder_of_this_machine(saved_router, tmp_path):
    route = pipeline("zooter-routing", model=str(saved_router))
    route.save_pretrained(tmp_path / "again")
    for file in (tmp_path / "again").iterdir():
        assert str(saved_router).encode() not in file.read_bytes(), file.name
        assert b"default_router" not in file.read_bytes(), file.name


def test_compiled_router_gives_the_same_numbers(saved_router, tokenizer):
    router = AutoModel.from_pretrained(saved_router)
    inputs = tokenizer(QUERIES, padding=True, return_tensors="pt", return_token_type_ids=False)
    compiled = torch.compile(router, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs).logits, router(**inputs).logits)


CONSUMER = """
import importlib.util, json, sys
assert importlib.util.find_spec("zooter_hf") is None, "the package must not be visible here"
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
folder, saved = sys.argv[1:3]
queries = json.loads(sys.argv[3])
router = AutoModel.from_pretrained(folder, trust_remote_code=True)
classifier = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer(queries, padding=True, return_tensors="pt", return_token_type_ids=False)
router.save_pretrained(saved + "-model")
with torch.no_grad():
    logits = router(**inputs).logits
    assert torch.equal(logits, classifier(**inputs).logits)
route = pipeline("zooter-routing", model=folder, trust_remote_code=True)
results = route(queries)
route.save_pretrained(saved)
print(json.dumps({"logits": logits.tolist(), "results": results, "experts": router.expert_names}))
"""


def test_a_consumer_without_the_package_gets_the_same_numbers(saved_router, tokenizer, tmp_path):
    # `-S`-like isolation: the site directory without this package's editable finder, and no repository on the path.
    site = os.path.dirname(os.path.dirname(torch.__file__))
    script = tmp_path / "consumer.py"
    script.write_text(textwrap.dedent(CONSUMER))
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": site,
        "PYTHONSAFEPATH": "1",
    }
    run = subprocess.run(
        [sys.executable, "-S", str(script), str(saved_router), str(tmp_path / "saved"), json.dumps(QUERIES)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert run.returncode == 0, run.stderr[:3000]
    seen = json.loads(run.stdout.strip().splitlines()[-1])
    router = AutoModel.from_pretrained(saved_router)
    inputs = tokenizer(QUERIES, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(seen["logits"]), router(**inputs).logits)
    here = pipeline("zooter-routing", model=str(saved_router))(QUERIES)
    for left, right in zip(seen["results"], here, strict=True):
        assert [e["label"] for e in left] == [e["label"] for e in right]
        assert [e["score"] for e in left] == pytest.approx([e["score"] for e in right], abs=1e-6)
    # What the consumer saved again is a complete router too.
    for folder in ("saved", "saved-model"):
        again = pipeline("zooter-routing", model=str(tmp_path / folder))(QUERIES)
        assert [r[0]["label"] for r in again] == [r[0]["label"] for r in here]
    assert (tmp_path / "saved" / "pipeline_zooter.py").exists()
