"""A router as a plain sequence classifier: judged by the stock pipeline of transformers."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, DistilBertConfig, ElectraConfig, pipeline

from tests.conftest import EXPERTS, QUERIES, SMALL
from zooter_hf import ZooterConfig, ZooterForRouting
from zooter_hf.conversion.exports import export


EXACT = {
    "bert": {"head": "mlp", "head_activation": "tanh", "pooling": "cls"},
    "bert, narrow": {"head": "mlp", "head_activation": "tanh", "pooling": "cls", "head_hidden_size": 7},
    "xlm-roberta": {"head": "mlp", "head_activation": "tanh", "pooling": "cls", "head_hidden_size": 5},
    "deberta-v2": {"head": "mlp", "head_activation": "gelu", "pooling": "cls"},
    "deberta-v2, linear": {"head": "linear", "pooling": "cls"},
    "modernbert": {"head": "mlp", "head_activation": "silu", "head_norm": True, "pooling": "mean"},
    "modernbert, cls": {"head": "mlp", "head_norm": True, "pooling": "cls"},
}


@pytest.mark.parametrize("name", EXACT)
def test_the_stock_pipeline_gives_the_routers_calibrated_probabilities(name, make_router, tmp_path):
    router = make_router(encoder=name.partition(",")[0], **EXACT[name])
    router.config.calibration_scale = [0.5, 1.5, 1.0]
    router.config.calibration_bias = [0.2, -0.1, 0.0]
    router.config.temperature = 2.0
    if name.startswith("modernbert"):
        torch.nn.init.normal_(router.classifier.norm.bias)
    check = export(router, tmp_path / "out", "sequence-classification", queries=QUERIES)
    assert check.agreement == 1 and check.largest_difference < 1e-5

    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config
    assert config.model_type == name.partition(",")[0] and not hasattr(config, "auto_map")
    assert not list((tmp_path / "out").glob("*.py"))
    classify = pipeline("text-classification", model=str(tmp_path / "out"), top_k=None)
    route = pipeline("zooter-routing", model=router)
    for theirs, ours in zip(classify(QUERIES), route(QUERIES), strict=True):
        assert [entry["label"] for entry in theirs] == [entry["label"] for entry in ours]
        assert [entry["score"] for entry in theirs] == pytest.approx([entry["score"] for entry in ours], abs=1e-5)


@pytest.mark.parametrize(
    "encoder, activation",
    [
        (lambda n: DistilBertConfig(vocab_size=n, dim=16, n_layers=2, n_heads=2, hidden_dim=24), "relu"),
        (lambda n: ElectraConfig(vocab_size=n, embedding_size=16, **SMALL), "gelu"),
    ],
    ids=["distilbert", "electra"],
)
def test_other_architectures(encoder, activation, tokenizer, tmp_path):
    torch.manual_seed(0)
    fields = {"head": "mlp", "head_activation": activation, "pooling": "cls"}
    config = ZooterConfig(encoder_config=encoder(len(tokenizer)), experts=EXPERTS, max_query_tokens=64, **fields)
    router = ZooterForRouting(config).eval()
    router.tokenizer = tokenizer
    for parameter in router.parameters():
        parameter.data.mul_(5.0)
    assert export(router, tmp_path / "out", "sequence-classification", queries=QUERIES).largest_difference < 1e-5


def test_experts_that_were_removed_are_left_out(make_router, tmp_path):
    router = make_router(**EXACT["bert"])
    router.remove_expert("code-9b")
    export(router, tmp_path / "out", "sequence-classification")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "math-7b", 1: "chat-70b"}
    assert model.classifier.out_features == 2


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"head": "mlp", "head_activation": "tanh"}, "pooling 'mean', and 'bert' knows cls only"),
        ({"head": "mlp", "pooling": "cls"}, "activation is 'gelu', and that of 'bert' 'tanh'"),
        ({"head": "linear", "pooling": "cls"}, "head is 'linear', and 'bert' needs 'mlp'"),
        ({"head": "cosine", "pooling": "cls"}, "head is 'cosine'"),
        ({**EXACT["bert"], "head_hidden_size": 17}, "17 wide, and that of 'bert' 16"),
        ({**EXACT["bert"], "head_norm": True}, "a norm in its head"),
        ({**EXACT["bert"], "normalize": True}, "normalised"),
        ({**EXACT["bert"], "outputs_per_expert": [1, 2, 1]}, "several outputs"),
    ],
)
def test_what_cannot_be_exact_is_refused_with_what_would_have_to_differ(fields, message, make_router, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        export(make_router(**fields), tmp_path / "out", "sequence-classification")
    assert "`onnx`" in str(error.value)
    assert list(tmp_path.iterdir()) == []
