import json

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    pipeline,
)

from tests.conftest import QUERIES, SMALL
from tests.conversion.checkpoints.conftest import ARCHITECTURES, LABELS
from zooter_hf import ExpertSpec, ZooterForRouting
from zooter_hf.conversion.checkpoints import load, sequence_classification


LONG = " ".join(QUERIES * 10)


def logits_of(model, tokenizer, queries):
    """The library's own way: one query at a time, cut where its tokenizer cuts."""
    with torch.no_grad():
        return torch.cat([model(**tokenizer(query, truncation=True, return_tensors="pt")).logits for query in queries])


def logits_through_pipeline(router, queries):
    probabilities = [
        {found["label"]: found["score"] for found in ranking}
        for ranking in pipeline("zooter-routing", model=router, tokenizer=router.tokenizer)(list(queries))
    ]
    return torch.tensor([[row[name] for name in router.expert_names] for row in probabilities])


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_the_logits_are_those_of_the_librarys_own_model(make_classifier, architecture, tmp_path):
    folder, model = make_classifier(architecture)
    router = load(folder, "sequence_classification")
    assert router.expert_names == list(LABELS)
    assert [expert.model for expert in router.config.experts] == ["org/small-7b", "org/large-70b", None]
    router.save_pretrained(tmp_path)
    for converted in (router, AutoModel.from_pretrained(tmp_path)):
        assert type(converted) is ZooterForRouting and not converted.training
        inputs = converted.tokenizer(QUERIES, padding=True, return_tensors="pt", return_token_type_ids=False)
        inputs["input_ids"][inputs["attention_mask"] == 0] = model.config.pad_token_id
        with torch.no_grad():
            expected, actual = model(**inputs).logits, converted(**inputs).logits
        assert (expected.std(dim=0) > 1e-3).all(), "a model that says the same of every query proves nothing"
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_queries_are_read_as_far_as_the_checkpoint_reads_them(make_classifier, tokenizer, architecture, side):
    folder, model = make_classifier(architecture)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "truncation_side": side, "model_max_length": 32})
    )
    router = load(folder, "sequence_classification")
    assert len(tokenizer(LONG)["input_ids"]) > 64
    expected = logits_of(model, router.tokenizer, [LONG, *QUERIES]).softmax(-1)
    torch.testing.assert_close(logits_through_pipeline(router, [LONG, *QUERIES]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("bias", [True, False])
def test_modernbert_heads(make_classifier, tokenizer, pooling, bias):
    fields = {
        "classifier_pooling": pooling,
        "classifier_bias": bias,
        "norm_bias": bias,
        "classifier_activation": "silu",
    }
    folder, model = make_classifier("modernbert", **fields)
    router = load(folder, "sequence_classification")
    assert (router.config.pooling, router.config.head_activation) == (pooling, "silu")
    torch.testing.assert_close(
        logits_through_pipeline(router, QUERIES), logits_of(model, tokenizer, QUERIES).softmax(-1), atol=1e-5, rtol=0
    )
    folder, _ = make_classifier("modernbert", norm_eps=1e-3)
    with pytest.raises(ValueError, match=r"norm of its head has the epsilon 0\.001"):
        load(folder, "sequence_classification")


def test_labels_of_one_expert_are_summed_over(make_classifier, tokenizer):
    folder, model = make_classifier(labels=("easy", "code", "medium", "hard"))
    strong = {"name": "strong", "model": "org/strong", "backend": "endpoint"}
    router = load(
        folder, "sequence_classification", {"hard": strong, "easy": "weak", "medium": "weak", "code": "strong"}
    )
    assert router.config.experts == [ExpertSpec("weak"), ExpertSpec("strong", "org/strong", "endpoint")]
    each = logits_of(model, tokenizer, QUERIES).softmax(-1)
    expected = torch.stack([each[:, 0] + each[:, 2], each[:, 1] + each[:, 3]], dim=1)
    torch.testing.assert_close(logits_through_pipeline(router, QUERIES), expected, atol=1e-6, rtol=0)


def test_experts_in_the_order_of_the_labels_from_a_file(make_classifier, tmp_path):
    folder, _ = make_classifier(labels=("LABEL_0", "LABEL_1"))
    (tmp_path / "experts.yaml").write_text("experts:\n- {name: a, input_price: 0.5}\n- b\n")
    router = load(folder, "sequence_classification", tmp_path / "experts.yaml")
    assert router.config.experts == [ExpertSpec("a", input_price=0.5), ExpertSpec("b")]
    (tmp_path / "map.json").write_text('{"LABEL_1": "b", "LABEL_0": "a"}')
    assert load(folder, "sequence_classification", str(tmp_path / "map.json")).expert_names == ["a", "b"]


@pytest.mark.parametrize(
    ("labels", "experts", "message"),
    [
        (("LABEL_0", "LABEL_1"), None, r"\['LABEL_0', 'LABEL_1'\] are placeholders.*--experts FILE"),
        (("LABEL_0", "LABEL_1"), {"LABEL_0": "a"}, r"lacks \['LABEL_1'\] and names \[\]"),
        (("x", "y"), {"x": "a", "y": "b", "z": "c"}, r"lacks \[\] and names \['z'\]"),
        (("x", "y"), ["a", "b", "c"], r"3 experts for the 2 labels \['x', 'y'\]"),
        (("x", "y"), [{"name": "a", "model": "m"}, {"name": "a", "model": "n"}], "expert 'a', but what is said"),
        (("x", "y"), [" a", "b"], "without surrounding spaces"),
        (("x",), None, r"one alone: \['x'\]"),
    ],
)
def test_experts_that_do_not_fit_the_labels(make_classifier, labels, experts, message):
    folder, _ = make_classifier(labels=labels)
    with pytest.raises(ValueError, match=message):
        load(folder, "sequence_classification", experts)


def test_what_cannot_be_carried_over_is_refused_by_name(make_classifier, tokenizer, tmp_path):
    gpt2 = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, pad_token_id=0)
    AutoModelForSequenceClassification.from_config(gpt2).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match="'gpt2' .GPT2ForSequenceClassification.*Supported are bert, "):
        load(tmp_path / "gpt2", "sequence_classification", ["a", "b"])

    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **SMALL)).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(ValueError, match=r"no trained classifier.*classifier\.weight"):
        load(tmp_path / "lm", "sequence_classification", ["a", "b"])

    folder, _ = make_classifier(problem_type="regression")
    with pytest.raises(ValueError, match="is a regression"):
        load(folder, "sequence_classification")

    folder, model = make_classifier()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"1": "a", "2": "b", "3": "c"}}))
    with pytest.raises(ValueError, match="does not number its labels from 0 on"):
        load(folder, "sequence_classification")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load(folder, "sequence_classification")


def test_a_router_that_computes_something_else_is_not_given(make_classifier, monkeypatch):
    folder, _ = make_classifier("roberta")
    wrong = sequence_classification.HeadLayout("classifier.dense", "gelu", output="classifier.out_proj")
    monkeypatch.setitem(sequence_classification.HEADS, "roberta", wrong)
    with pytest.raises(ValueError, match="differ from the checkpoint's by 0.*more than 0.0001"):
        load(folder, "sequence_classification")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="differ from the checkpoint's"):
        load(folder, "sequence_classification", pooling="mean")


def test_nothing_of_this_machine_is_in_what_is_saved(make_classifier, tmp_path):
    folder, _ = make_classifier(problem_type="multi_label_classification")
    load(folder, "sequence_classification").save_pretrained(tmp_path / "router")
    for name in ("config.json", "README.md"):
        text = (tmp_path / "router" / name).read_text()
        assert str(folder) not in text and str(folder.parent) not in text
    assert "converted from a checkpoint of type BertForSequenceClassification" in text


def test_sources_and_formats_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="no reader for 'onnx'.*routellm, routerdc, sentence_transformers, sequence_"):
        load(tmp_path, "onnx")
    with pytest.raises(OSError, match="nowhere is not there"):
        load(tmp_path / "nowhere", "sequence_classification")
    for text, message in {"": "must hold", "3": "must hold", "- [": "neither YAML nor JSON"}.items():
        (tmp_path / "experts.yml").write_text(text)
        with pytest.raises(ValueError, match=message):
            load(tmp_path, "sequence_classification", tmp_path / "experts.yml")
    with pytest.raises(ValueError, match=r"must end in \.yaml"):
        load(tmp_path, "sequence_classification", "experts.txt")
