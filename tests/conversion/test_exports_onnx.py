"""ONNX graphs, run by ONNX runtime: the same numbers in full precision, nearly the same experts in 8-bit integers."""

import random

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.conftest import QUERIES
from zooter_hf import ZooterForRouting
from zooter_hf.conversion.exports import export, onnx_int8
from zooter_hf.conversion.exports.quantization import calibrate, quantize
from zooter_hf.modeling import decision_margin, session_options


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {name: value.numpy() for name, value in inputs.items()}), strict=True))


def tokens(batch, length, padded=0):
    input_ids = torch.randint(5, 100, (batch, length), generator=torch.Generator().manual_seed(0))
    attention_mask = torch.ones_like(input_ids)
    if padded:
        attention_mask[0, -padded:] = 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


@pytest.mark.parametrize("encoder", ["bert", "xlm-roberta", "deberta-v2", "modernbert"])
def test_a_graph_gives_what_the_router_gives_for_any_batch_and_length(encoder, make_router, tmp_path):
    router = make_router(encoder, head="mlp", predict_rewards=True)
    check = export(router, tmp_path / "out", "onnx", queries=QUERIES)
    assert check.agreement == 1 and check.largest_difference < 1e-5 and check.queries == len(QUERIES)
    for inputs in (tokens(1, 2), tokens(3, 17, padded=5), tokens(7, 60, padded=50)):
        theirs = run(tmp_path / "out" / "onnx" / "model.onnx", **inputs)
        with torch.inference_mode():
            ours = router(**inputs)
        assert set(theirs) == {"logits", "query_embedding", "predicted_rewards"}
        for name, values in theirs.items():
            np.testing.assert_allclose(values, ours[name].numpy(), atol=2e-4, rtol=1e-3)
        heads = run(tmp_path / "out" / "onnx" / "head.onnx", query_embedding=ours.query_embedding)
        for name in ("logits", "predicted_rewards"):
            np.testing.assert_allclose(heads[name], ours[name].numpy(), atol=2e-4, rtol=1e-3)


def test_the_folder_is_a_router_with_a_graph_that_tells_nothing_of_the_machine(make_router, tmp_path):
    centroids = [{"tags": ["math"], "queries": 3}, {"tags": ["code"], "queries": 2}]
    router = make_router(head="cosine", centroids=centroids)
    torch.nn.init.normal_(router.centroids)
    export(router, tmp_path / "out", "onnx")
    loaded = ZooterForRouting.from_pretrained(tmp_path / "out")
    assert loaded.expert_names == router.expert_names and loaded.tokenizer is not None
    np.testing.assert_array_equal(
        run(tmp_path / "out" / "onnx" / "model.onnx", **tokens(2, 4))["centroids"], router.centroids.numpy()
    )
    for graph in ("model", "head"):
        content = (tmp_path / "out" / "onnx" / f"{graph}.onnx").read_bytes()
        assert b"site-packages" not in content and b".py" not in content


def queries_of(count, seed=0):
    words = sorted({word for query in QUERIES for word in query.split()})
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.randint(2, 30))) for _ in range(count)]


@pytest.fixture(scope="module")
def exported(make_router, tmp_path_factory):
    """A router, the folder of its graphs in both precisions, and what the export said of them."""
    router = make_router(head="mlp", seed=3)
    folder = tmp_path_factory.mktemp("int8") / "router"
    return router, folder, export(router, folder, "onnx-int8", queries=queries_of(400))


def test_integers_choose_the_same_experts_once_close_calls_are_asked_again(exported):
    _, folder, check = exported
    assert check.queries == 200 and check.agreement >= 0.995 and 0 <= check.rechecked < 0.2
    graph = onnx.load(folder / "onnx" / "model_int8.onnx").graph
    integers = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(integers) == 12  # six a layer; the head and attention itself stay as they are
    assert (folder / "onnx" / "model.onnx").exists()


def test_what_a_query_gets_does_not_depend_on_those_beside_it(exported):
    _, folder, _ = exported
    path = folder / "onnx" / "model_int8.onnx"
    together = run(path, **tokens(4, 30))["logits"]
    alone = [run(path, **{name: value[row : row + 1] for name, value in tokens(4, 30).items()}) for row in range(4)]
    np.testing.assert_allclose(together, np.concatenate([each["logits"] for each in alone]), atol=1e-5)


def test_a_product_is_as_close_as_eight_bits_allow(tmp_path):
    # One product with a bias; channels with outliers, one with a shift, one whose mean is far from its middle.
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(8, 5)).astype(np.float32)
    bias = generator.normal(size=5).astype(np.float32)
    values = generator.normal(size=(6, 20, 8)) * [1, 1, 1, 1, 1, 1, 40, 60] + [0, 0, 9, 0, 0, 0, 0, 0]
    values[..., 3] = generator.exponential(30, size=(6, 20))
    values = values.astype(np.float32)
    make = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["xw"], name="product"),
        onnx.helper.make_node("Add", ["xw", "b"], ["y"], name="bias"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [
            make("x", onnx.TensorProto.FLOAT, ["batch", "tokens", 8]),
            make("attention_mask", onnx.TensorProto.INT64, ["batch", "tokens"]),
        ],
        [make("y", onnx.TensorProto.FLOAT, ["batch", "tokens", 5])],
        [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(bias, "b")],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "full.onnx")
    mask = torch.ones(6, 20, dtype=torch.long)
    mask[:, 15:] = 0  # padding, whose values no range may know
    wild = values.copy()
    wild[:, 15:] = 1e6
    ranges = calibrate(tmp_path / "full.onnx", [{"x": torch.from_numpy(wild), "attention_mask": mask}])
    np.testing.assert_allclose(ranges["x"].high, values[:, :15].max(axis=(0, 1)), rtol=1e-6)
    quantize(tmp_path / "full.onnx", tmp_path / "int8.onnx", ranges)

    inputs = {"x": torch.from_numpy(values[:, :15]), "attention_mask": mask[:, :15]}
    theirs, ours = (run(tmp_path / name, **inputs)["y"] for name in ("int8.onnx", "full.onnx"))
    np.testing.assert_allclose(ours, values[:, :15] @ weight + bias, rtol=1e-3, atol=1e-3)
    error = np.abs(theirs - ours)
    assert 0 < error.mean() < 0.02 * ours.std()
    # What rounding the weights loses on average is given back.
    assert np.abs((theirs - ours).mean(axis=(0, 1))).max() < 0.2 * error.mean()
    # One range for all channels, as in dynamic quantisation, would be several times as far off.
    step = (values.max() - values.min()) / 255
    coarse = np.round(values[:, :15] / step) * step @ weight + bias
    assert error.mean() < 0.5 * np.abs(coarse - ours).mean()


def test_the_margin_lies_just_above_the_last_call_that_must_be_caught(make_router):
    router = make_router()
    router.config.temperature = 0.5
    ours = torch.tensor([[0.5, 0.3, 0.2], [0.3, 0.4, 0.3], [0.45, 0.5, 0.05], [0.2, 0.3, 0.5]])
    theirs = torch.tensor([[0.5, 0.3, 0.2], [0.42, 0.38, 0.2], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
    margins = decision_margin(theirs, router.config.temperature)
    assert margins[1].item() == pytest.approx(0.5 * np.log(0.42 / 0.38), rel=1e-5)
    every = onnx_int8.find_margin(router, ours, theirs, agreement=1.0)
    assert every == pytest.approx(0.5 * np.log(2), rel=1e-5) and margins[2] < every < margins[0] + 1
    assert onnx_int8.find_margin(router, ours, theirs, agreement=0.75) == pytest.approx(margins[1].item(), rel=1e-5)
    assert onnx_int8.find_margin(router, ours, theirs, agreement=0.5) == 0
    assert onnx_int8.find_margin(router, ours, ours, agreement=1.0) == 0


@pytest.mark.parametrize(("installed", "spins"), [("1.23.2", "0"), ("1.32.0", "1")])
def test_threads_spin_only_where_they_can_be_told_for_how_long(installed, spins, monkeypatch):
    monkeypatch.setattr(onnxruntime, "__version__", installed)
    options = session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == spins
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert options.intra_op_num_threads == torch.get_num_threads()
