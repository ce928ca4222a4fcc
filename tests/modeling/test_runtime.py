"""The ONNX runtime in place of torch weights: the same pipeline, the same numbers, from the same folder."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, pipeline

from tests.conftest import QUERIES
from tests.conversion.test_exports_onnx import queries_of
from zooter_hf import ExpertSpec, ZooterForRouting
from zooter_hf.conversion.exports import export
from zooter_hf.modeling import OnnxRouter
from zooter_hf.routing import predict


FIELDS = {"head": "mlp", "predict_rewards": True, "centroids": [{"tags": ["math"], "queries": 3}, {"tags": []}]}


@pytest.fixture(scope="module")
def folder(make_router, tmp_path_factory):
    """A router's folder with its graphs in both precisions."""
    router = make_router(**FIELDS, seed=3)
    torch.nn.init.normal_(router.centroids)
    router.config.temperature = 1.7
    folder = tmp_path_factory.mktemp("runtime") / "router"
    export(router, folder, "onnx-int8", queries=queries_of(400))
    return folder


def load(folder, runtime=None, **kwargs):
    return pipeline(
        "zooter-routing", model=str(folder), model_kwargs={"runtime": runtime} if runtime else {}, **kwargs
    )


def test_the_pipeline_says_the_same(folder):
    ours, theirs = load(folder), load(folder, "onnx")
    assert isinstance(theirs.model, OnnxRouter) and not list(theirs.model.parameters())
    queries = [*QUERIES, [{"role": "user", "content": QUERIES[0]}]]
    for one, other in zip(
        ours(queries, return_truncation=True), theirs(queries, return_truncation=True, batch_size=4), strict=True
    ):
        assert [entry["label"] for entry in other["ranking"]] == [entry["label"] for entry in one["ranking"]]
        for key in ("score", "reward"):
            values = [entry[key] for entry in other["ranking"]]
            assert values == pytest.approx([entry[key] for entry in one["ranking"]], abs=1e-4)
        assert other["distance"] == pytest.approx(one["distance"], abs=1e-4) and other["near"] == one["near"]


def test_the_weights_are_not_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "graphs")
    (tmp_path / "graphs" / "model.safetensors").unlink()
    assert load(tmp_path / "graphs", "onnx")(QUERIES[0]) == load(folder, "onnx")(QUERIES[0])


def test_integers_choose_the_experts_of_the_router(folder):
    queries = queries_of(300, seed=1)
    ours, theirs = load(folder), load(folder, "onnx-int8")
    assert theirs.model.recheck_below >= 0
    same = [a[0]["label"] == b[0]["label"] for a, b in zip(ours(queries), theirs(queries), strict=True)]
    assert sum(same) >= 0.99 * len(queries)


def test_close_calls_are_asked_again_and_others_are_not(folder):
    router = ZooterForRouting.from_pretrained(folder, runtime="onnx-int8")
    exact = ZooterForRouting.from_pretrained(folder, runtime="onnx")
    input_ids = torch.randint(5, 100, (6, 12))
    attention_mask = (torch.arange(12) < torch.tensor([[12], [5], [9], [3], [12], [7]])).long()
    full = exact(input_ids, attention_mask)
    router.recheck_below = 0.0
    integers = router(input_ids, attention_mask)
    assert not torch.allclose(integers.logits, full.logits, atol=1e-4)
    router.recheck_below, router._full_session = float("inf"), exact._session
    for name, values in router(input_ids, attention_mask).items():
        torch.testing.assert_close(values, full[name], atol=1e-4, rtol=1e-4)
    best = integers.logits.topk(2).values
    margins = best[:, 0] - best[:, 1]
    router.recheck_below = margins.median().item() + 1e-4
    mixed = router(input_ids, attention_mask).logits
    close = margins < router.recheck_below
    torch.testing.assert_close(mixed[close], full.logits[close], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[~close], integers.logits[~close])
    assert 0 < close.sum() < 6
    left = attention_mask.flip(1)  # padding on the other side is no reason for other numbers
    router.recheck_below = float("inf")
    torch.testing.assert_close(router(input_ids, left).logits, exact(input_ids, left).logits, atol=1e-4, rtol=1e-4)


def test_experts_can_be_removed_and_tensors_be_had(folder):
    router = AutoModel.from_pretrained(folder, runtime="onnx")
    torch_router = AutoModel.from_pretrained(folder)
    for each in (router, torch_router):
        each.remove_expert("code-9b")
    ours, theirs = predict(torch_router, QUERIES), predict(router, QUERIES)
    torch.testing.assert_close(theirs.probabilities, ours.probabilities, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(theirs.embeddings, ours.embeddings, atol=1e-3, rtol=1e-3)


def test_what_a_graph_cannot_do_is_refused(folder, tmp_path):
    router = ZooterForRouting.from_pretrained(folder, runtime="onnx")
    with pytest.raises(TypeError, match="no weights to save"):
        router.save_pretrained(tmp_path / "saved")
    with pytest.raises(TypeError, match="no weights"):
        router.append_expert(ExpertSpec("new"), torch.zeros(17))
    with pytest.raises(TypeError, match=r"not \['labels'\]"):
        router(torch.tensor([[2, 3]]), labels=torch.tensor([0]))


def test_a_missing_or_outdated_graph_is_an_error(folder, saved_router, tmp_path):
    message = "holds no onnx/model_int8.onnx.*--to onnx-int8"
    with pytest.raises(OSError, match=message):
        AutoModel.from_pretrained(saved_router, runtime="onnx-int8")
    with pytest.raises(ValueError, match=message):  # the pipeline of the library wraps errors of loading
        load(saved_router, "onnx-int8")
    with pytest.raises(ValueError, match="'torch' or one of"):
        ZooterForRouting.from_pretrained(folder, runtime="openvino")
    with pytest.raises(TypeError, match="model_kwargs"):
        pipeline("zooter-routing", model=str(folder), runtime="onnx")
    shutil.copytree(folder, tmp_path / "grown")
    router = ZooterForRouting.from_pretrained(folder)
    router.append_expert(ExpertSpec("new"), torch.zeros(17), torch.zeros(17))
    router.save_pretrained(tmp_path / "grown")
    with pytest.raises(ValueError, match="scores 3 experts, and the router has 4"):
        ZooterForRouting.from_pretrained(tmp_path / "grown", runtime="onnx")


def test_it_works_where_the_package_is_not(folder, tmp_path):
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "zooter_hf":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from transformers import pipeline
options = {{"trust_remote_code": True, "model_kwargs": {{"runtime": "onnx-int8"}}}}
route = pipeline("zooter-routing", model={str(folder)!r}, **options)
print(type(route.model).__name__, route("Why?", top_k=1)[0]["label"])
"""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    expected = load(folder, "onnx-int8")("Why?", top_k=1)[0]["label"]
    assert run.stdout.split() == ["OnnxRouter", expected]
