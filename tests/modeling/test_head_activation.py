"""What heads of other people's routers need of ours: their activation, norm, and several outputs an expert."""

import pytest
import torch
from torch import nn
from transformers import AutoModel, BertConfig
from transformers.activations import ACT2FN

from tests.conftest import QUERIES
from zooter_hf import ZooterConfig


ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "gelu": nn.functional.gelu}


def logits_and_embedding(router, tokenizer, queries=tuple(QUERIES)):
    with torch.no_grad():
        output = router(**tokenizer(list(queries), padding=True, return_tensors="pt"))
    return output.logits, output.query_embedding


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_the_mlp_head_equals_its_definition(make_router, tokenizer, name):
    router = make_router(head="mlp", head_activation=name)
    logits, embedding = logits_and_embedding(router, tokenizer)
    head = router.classifier
    hidden = ACTIVATIONS[name](embedding @ head.dense.weight.T + head.dense.bias)
    torch.testing.assert_close(logits, hidden @ head.out_proj.weight.T + head.out_proj.bias)


def test_a_norm_stands_behind_the_activation(make_router, tokenizer):
    router = make_router(head="mlp", head_norm=True)
    torch.nn.init.uniform_(router.classifier.norm.weight)
    logits, embedding = logits_and_embedding(router, tokenizer)
    head = router.classifier
    hidden = nn.functional.gelu(head.dense(embedding))
    scaled = (hidden - hidden.mean(-1, keepdim=True)) / (hidden.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    expected = head.out_proj(scaled * head.norm.weight + head.norm.bias)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_without_the_fields_is_what_it_was(make_router):
    router = make_router(head="mlp")
    assert [name for name, _ in router.classifier.named_parameters()] == [
        "dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias",
    ]  # fmt: skip
    old = {k: v for k, v in router.config.to_dict().items() if k not in ("head_activation", "head_norm", "normalize")}
    config = ZooterConfig.from_dict(old)
    assert (config.head_activation, config.head_norm, config.normalize) == ("gelu", False, False)


@pytest.mark.parametrize("head", ["linear", "mlp", "cosine"])
def test_the_probability_of_an_expert_is_the_sum_over_its_outputs(make_router, tokenizer, head, tmp_path):
    router = make_router(head=head, outputs_per_expert=[1, 3, 2])
    logits, embedding = logits_and_embedding(router, tokenizer)
    assert logits.shape == (len(QUERIES), 3)
    with torch.no_grad():
        each = router.classifier(embedding).softmax(-1)
    sums = torch.stack([each[:, 0], each[:, 1:4].sum(-1), each[:, 4:].sum(-1)], dim=-1)
    torch.testing.assert_close(router.probabilities(logits), sums)
    router.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(logits_and_embedding(loaded, tokenizer)[0], logits)


def test_embeddings_are_of_length_one_where_that_is_asked_for(make_router, tokenizer):
    _, raw = logits_and_embedding(make_router(), tokenizer)
    _, unit = logits_and_embedding(make_router(normalize=True), tokenizer)
    torch.testing.assert_close(unit, raw / raw.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("head_activation", "gleu", "`head_activation` must be one of"),
        ("outputs_per_expert", [1], "for each of the 2 experts"),
        ("outputs_per_expert", [1, 0], "must be a positive number"),
        ("outputs_per_expert", [1, 1.5], "must be a positive number"),
    ],
)
def test_wrong_values_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        ZooterConfig(encoder_config=BertConfig(), experts=["a", "b"], **{field: value})


def test_every_activation_of_the_library_is_known():
    for name in ACT2FN:
        assert ZooterConfig(encoder_config=BertConfig(), experts=["a"], head_activation=name).head_activation == name
