"""Saved, shared and loaded again: router, experts and settings, and no secret."""

import json

import pytest

from tests.chat_server import ChatServer
from tests.conftest import QUERIES
from tests.ensemble.conftest import NAMES, rank
from zooter_hf import ExpertSpec, ZooterConfig, ZooterEnsemble, ZooterForRouting
from zooter_hf.ensemble import EnsembleSettings
from zooter_hf.experts import GenerationSettings


KEY = "sk-onlyForTheTests"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("THE_KEY", KEY)
    models = {name: lambda messages, name=name: f"{name} says so" for name in (*NAMES, "extra")}
    with ChatServer(models=models, api_key=KEY) as server:
        yield server


@pytest.fixture
def ensemble(make_router, server):
    options = {"api_key_env": "THE_KEY"}
    experts = [
        ExpertSpec(name, backend="endpoint", model=name, base_url=server.base_url, options=options, input_price=1.5)
        for name in (*NAMES, "extra")
    ]
    router = make_router(experts=NAMES)
    rank(router, NAMES)
    settings = {"sticky": True, "max_fallbacks": 1, "generation": {"max_new_tokens": 7, "stop": ("END",)}}
    with ZooterEnsemble(router, experts, **settings) as ensemble:
        yield ensemble


def test_saved_and_loaded_it_is_the_same(ensemble, tmp_path):
    before = ensemble.generate(QUERIES)
    ensemble.save_pretrained(tmp_path)
    with ZooterEnsemble.from_pretrained(tmp_path) as loaded:
        assert loaded.settings == ensemble.settings
        assert loaded.settings.generation == GenerationSettings(max_new_tokens=7, stop=("END",))
        assert [expert.spec for expert in loaded.experts.values()] == [
            expert.spec for expert in ensemble.experts.values()
        ]
        after = loaded.generate(QUERIES)
        assert [reply.text for reply in after] == [reply.text for reply in before]
        assert after[0].decision.ranking[0].input_price == 1.5
        assert loaded.generate("Why?", expert="extra").text == "extra says so"
    with ZooterEnsemble.from_pretrained(tmp_path, sticky=False, max_loaded=3) as changed:
        assert not changed.settings.sticky and changed.settings.max_fallbacks == 1
    # The router by itself is there as well, and knows its experts.
    router = ZooterForRouting.from_pretrained(tmp_path)
    assert router.expert_names == NAMES and router.config.experts[0].base_url.startswith("http")


def test_no_secret_is_written(ensemble, tmp_path):
    ensemble.generate(QUERIES)
    ensemble.save_pretrained(tmp_path)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_experts_in_place_of_those_that_were_saved(ensemble, tmp_path, server):
    ensemble.save_pretrained(tmp_path)
    new = {"alpha": {"backend": "endpoint", "model": "extra", "base_url": server.base_url}}
    new["alpha"]["options"] = {"api_key_env": "THE_KEY"}
    with ZooterEnsemble.from_pretrained(tmp_path, new) as loaded:
        assert loaded.generate("Why?").text == "extra says so"
        assert set(loaded.experts) == {*NAMES, "extra"}


def test_a_router_that_was_saved_by_itself(make_router, tmp_path):
    experts = [ExpertSpec(name, backend="endpoint", model=name, base_url="http://h/v1") for name in NAMES]
    make_router(experts=experts).save_pretrained(tmp_path)
    ensemble = ZooterEnsemble.from_pretrained(tmp_path)
    assert list(ensemble.experts) == NAMES and ensemble.settings == EnsembleSettings()


@pytest.mark.parametrize(
    "content", ['{"fallback": "always"}', '{"colour": 1}', "[]", "{", '{"added_experts": [{"model": "x"}]}']
)
def test_a_file_that_cannot_be_right(ensemble, tmp_path, content):
    ensemble.save_pretrained(tmp_path)
    (tmp_path / "ensemble_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"ensemble_config.json"):
        ZooterEnsemble.from_pretrained(tmp_path)


def test_a_folder_on_this_machine_is_not_published(make_router, tmp_path):
    spec = ExpertSpec("alpha", backend="transformers", model=str(tmp_path))
    router = make_router(experts=["alpha", "beta"])
    ensemble = ZooterEnsemble(router, [spec], on_missing="skip")
    with pytest.raises(ValueError, match=r"'alpha': `model` is a folder on this machine"):
        ensemble.push_to_hub("you/router")


def test_settings_as_json():
    settings = EnsembleSettings(sticky=True, generation=GenerationSettings(temperature=0.5))
    assert EnsembleSettings().changed(json.loads(json.dumps(settings.to_dict()))) == settings


def test_a_router_without_a_config_of_experts_is_refused_by_name(tmp_path):
    ZooterConfig(experts=["a"]).save_pretrained(tmp_path)
    with pytest.raises(OSError, match=str(tmp_path)):
        ZooterEnsemble.from_pretrained(tmp_path)
