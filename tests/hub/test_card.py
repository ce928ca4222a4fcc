import re

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModel

from zooter_hf import ExpertSpec
from zooter_hf.hub.card import GENERATED_MARK, model_card


TRAINING = {
    "name": "my-router",
    "method": "By hand.",
    "beta": 0.3,
    "tau": 0.1,
    "datasets": [{"name": "sums", "url": "https://example.org", "license": "MIT", "queries": 1234}],
    "language": "en",
    "license": "apache-2.0",
    "hyperparameters": {"epochs": 5},
    "limitations": ["It knows sums only."],
    "evaluation": {
        "dataset": "held-out sums",
        "queries": 321,
        "router": {"score": 0.654, "standard_error": 0.012},
        "best_single_model": {"expert": "math-7b", "score": 0.6},
        "gain": {"score": 0.054, "low": 0.01, "high": 0.09},
        "random": 0.4,
        "oracle": 0.8,
        "subsets": {"adding": {"queries": 321, "router": 0.654, "best_single_model": 0.6}},
        "script": "make sums",
    },
}


@pytest.fixture
def card(make_router):
    config = make_router(base_encoder="org/encoder", training=TRAINING).config
    return model_card(config, repo_id="you/router", parameters=22_700_000, tags=["mine"])


def test_metadata(card):
    data = card.data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-classification"
    assert {"zooter", "llm-routing", "mine"} <= set(data["tags"])
    assert data["base_model"] == "org/encoder"
    assert data["datasets"] == ["sums"]
    assert data["license"] == "apache-2.0"
    result = data["model-index"][0]["results"][0]
    assert result["metrics"][0]["value"] == 0.654
    assert result["dataset"]["name"] == "held-out sums"


def test_body(card):
    text = card.text
    for needle in (
        "| math-7b | org/math-7b | 0.1 | 0.2 | - |",
        "| code-9b | org/code-9b | 0.3 | 0.6 | 8192 |",
        "| chat-70b | - | - | - | - |",
        "By hand.",
        "| [sums](https://example.org) | 1,234 | MIT |",
        "| epochs | 5 |",
        "| **this router** | **65.4** ± 1.2 |",
        "| best single model (math-7b) | 60.0 |",
        "+5.4 points, 95 % interval +1.0 to +9.0",
        "| adding | 321 | 65.4 | 60.0 |",
        "`make sums`",
        "- It knows sums only.",
        'pipeline("zooter-routing", model="you/router")',
        "arXiv:2311.08692",
        "22.7M parameters",
    ):
        assert needle in text, needle
    assert "None" not in text
    assert not re.search(r"\{[{%]", text), "unfilled template"
    assert not re.search(r"\n\n\n", text), "a gap"


def test_what_is_not_known_is_said_to_be_so(make_router):
    card = model_card(make_router(experts=("a", "b")).config)
    assert "Not recorded." in card.text
    assert "model-index" not in card.data.to_dict()
    assert "$" not in card.text, "no prices, no price columns"


def test_experts_that_can_answer_are_shown_to(card, make_router):
    assert "ZooterEnsemble" not in card.text, "of these experts nobody says how to run them"
    experts = [ExpertSpec(name, model=name, backend="transformers") for name in "ab"]
    text = model_card(make_router(experts=experts).config, repo_id="you/router").text
    assert 'ZooterEnsemble.from_pretrained("you/router")' in text
    assert "```\n\nTo have the chosen expert answer:\n\n```" in text and "```\n\nWith transformers alone" in text


def test_tables_are_whole(card):
    """Every row of a Markdown table has as many cells as its head."""
    table = []
    for line in [*card.text.splitlines(), ""]:
        if line.startswith("|"):
            table.append(line.count("|"))
        elif table:
            assert len(set(table)) == 1, card.text
            table = []


def test_a_card_is_written_anew_unless_a_person_changed_it(saved_router, tmp_path):
    router = AutoModel.from_pretrained(saved_router)
    router.save_pretrained(tmp_path)
    router.config.training = TRAINING
    router.save_pretrained(tmp_path)
    assert "my-router" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("# Mine")
    router.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Mine"
    # And it goes along when the router is loaded and saved elsewhere.
    AutoModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "README.md").read_text() == "# Mine"


def test_saved_card_is_valid_and_names_the_repository(saved_router, tmp_path):
    AutoModel.from_pretrained(saved_router).save_pretrained(tmp_path, repo_id="you/mine")
    card = ModelCard.load(tmp_path / "README.md")
    assert 'model="you/mine"' in card.text
    assert GENERATED_MARK in card.text


def test_rewards_on_a_scale_of_their_own_are_not_shown_in_percent(make_router):
    evaluation = {
        "dataset": "ours", "queries": 7, "percent": False, "router": {"score": -2.5, "standard_error": 0.25},
        "best_single_model": {"expert": "math-7b", "score": -3.0}, "gain": {"score": 0.5, "low": 0.125, "high": 1.0},
    }  # fmt: skip
    text = str(model_card(make_router(training={"evaluation": evaluation}).config))
    assert "| **this router** | **-2.500** ± 0.250 |" in text
    assert "model: +0.500, 95 % interval +0.125 to +1.000" in text
    assert "in percent" not in text
