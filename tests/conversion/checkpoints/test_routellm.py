import math

import numpy as np
import pytest
import torch
from transformers import AutoModel, pipeline

from tests.conftest import QUERIES
from zooter_hf.conversion.checkpoints import load


PLACEHOLDERS = ("LABEL_0", "LABEL_1", "LABEL_2")


def strong_win_rates(model, tokenizer, queries):
    """By RouteLLM's definition: one minus the probabilities of a tie and of the weak model's win."""
    rates = []
    for query in queries:
        with torch.no_grad():
            logits = model(**tokenizer(query, truncation=True, return_tensors="pt")).logits[0].double().numpy()
        scores = np.exp(logits - logits.max())
        rates.append(1 - (scores / scores.sum())[-2:].sum())
    return rates


@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta"])
def test_the_probability_of_the_strong_expert_is_its_win_rate(make_classifier, tokenizer, architecture, tmp_path):
    folder, model = make_classifier(architecture, PLACEHOLDERS)
    load(folder, "routellm").save_pretrained(tmp_path)
    router = AutoModel.from_pretrained(tmp_path)
    assert router.expert_names == ["gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"]
    expected = strong_win_rates(model, tokenizer, QUERIES)
    assert max(expected) - min(expected) > 1e-3
    route = pipeline("zooter-routing", model=router, tokenizer=router.tokenizer)
    for query, rate in zip(QUERIES, expected, strict=True):
        scores = {found["label"]: found["score"] for found in route(query)}
        assert scores["gpt-4-1106-preview"] == pytest.approx(rate, abs=1e-6)
        assert math.fsum(scores.values()) == pytest.approx(1, abs=1e-6)


def test_weights_of_half_the_precision(make_classifier, tokenizer):
    folder, model = make_classifier(labels=PLACEHOLDERS)
    model.bfloat16().save_pretrained(folder)
    router = load(folder, "routellm")
    assert router.dtype == torch.float32
    with torch.no_grad():
        logits = torch.cat([router(**tokenizer(query, return_tensors="pt")).logits for query in QUERIES])
    expected = strong_win_rates(model.float(), tokenizer, QUERIES)
    assert router.probabilities(logits)[:, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_other_pairs(make_classifier):
    folder, _ = make_classifier(labels=PLACEHOLDERS)
    assert load(folder, "routellm", {"weak": "w", "strong": "s"}).expert_names == ["s", "w"]
    assert load(folder, "routellm", [{"name": "s", "model": "org/s"}, "w"]).config.experts[0].model == "org/s"
    for wrong in (["s"], ["s", "t", "w"], {"strong": "s", "small": "w"}):
        with pytest.raises(ValueError, match=r"two experts: the strong one.*Given are"):
            load(folder, "routellm", wrong)
    with pytest.raises(ValueError, match="are the same: 's'"):
        load(folder, "routellm", ["s", "s"])


def test_other_classifiers_are_refused(make_classifier):
    folder, _ = make_classifier(labels=("a", "b"))
    with pytest.raises(ValueError, match=r"has 2 labels, \['a', 'b'\].*sequence_classification"):
        load(folder, "routellm")
