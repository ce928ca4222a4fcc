"""The embedded router: what ships, and that its card is the one at the root."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, pipeline

from recipes.default_router import CARD, MAX_MEGABYTES, default_card
from zooter_hf import DEFAULT_ROUTER


@pytest.fixture(scope="module")
def route():
    return pipeline("zooter-routing")


def test_it_is_small_and_complete():
    files = {file.name: file.stat().st_size for file in Path(DEFAULT_ROUTER).iterdir()}
    assert sum(files.values()) <= MAX_MEGABYTES * 1e6
    assert set(files) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_its_cards_are_fresh():
    card = default_card()
    assert CARD.read_text(encoding="utf-8") == card, "stale: run `make card`"
    assert Path(DEFAULT_ROUTER, "README.md").read_text(encoding="utf-8") == card, "stale: run `make card`"


def test_it_computes_in_single_precision(route):
    assert {parameter.dtype for parameter in route.model.parameters()} == {torch.float32}


def test_its_experts_have_models_and_prices(route):
    experts = route.model.config.experts
    assert len(experts) == 9
    assert all(e.model and e.input_price > 0 and e.output_price > 0 for e in experts)


def test_it_beat_the_best_single_model(route):
    evaluation = route.model.config.training["evaluation"]
    assert evaluation["gain"]["low"] > 0
    assert evaluation["router"]["score"] > evaluation["best_single_model"]["score"]


def test_it_tells_domains_apart(route):
    """Queries in the manner of its training tasks go to experts that are good at those."""
    chosen = [
        ranking[0]["label"]
        for ranking in route(
            [
                "If $a + b = 7$ and $ab = 10$, what is $a^3 + b^3$?",
                "Where would a person put a coat after coming in from the rain?",
                "Which scientist, awarded two Nobel Prizes, gave her name to element 96?",
            ]
        )
    ]
    assert chosen == [
        "llama-3.3-nemotron-super-49b-v1",
        "qwen2.5-7b-instruct",
        "llama-3.1-nemotron-51b-instruct",
    ]


def test_saved_elsewhere_it_is_a_router_like_any_other(route, tmp_path):
    route.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert (tmp_path / "modeling_zooter.py").exists()
    for (name, left), (_, right) in zip(again.named_parameters(), route.model.named_parameters(), strict=True):
        assert torch.equal(left, right), name
    assert DEFAULT_ROUTER not in (tmp_path / "config.json").read_text()
