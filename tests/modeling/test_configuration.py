import json

import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import AutoConfig, BertConfig, T5Config, XLMRobertaConfig

from tests.conftest import EXPERTS
from zooter_hf import ExpertSpec, ZooterConfig


def config(**fields):
    return ZooterConfig(**{"encoder_config": BertConfig(hidden_size=24), "experts": ["a", "b"], **fields})


def test_labels_follow_from_experts():
    assert config().id2label == {0: "a", 1: "b"}
    assert config().label2id == {"a": 0, "b": 1}
    assert config().num_labels == 2


def test_experts_may_be_names_dicts_or_specs():
    experts = config(experts=["a", {"name": "b", "input_price": 1.5}, ExpertSpec("c")]).experts
    assert experts == [ExpertSpec("a"), ExpertSpec("b", input_price=1.5), ExpertSpec("c")]


def test_round_trip_keeps_everything(tmp_path):
    before = config(
        experts=EXPERTS,
        pooling="cls",
        head="cosine",
        chat_context="all",
        temperature=1.7,
        max_query_tokens=100,
        head_share=0.25,
        training={"method": "by hand", "tau": 0.1},
    )
    before.save_pretrained(tmp_path)
    after = AutoConfig.from_pretrained(tmp_path)
    assert type(after) is ZooterConfig
    assert type(after.encoder_config) is BertConfig
    assert after.experts == EXPERTS
    ignored = ("transformers_version", "architectures", "_name_or_path")
    assert {k: v for k, v in after.to_dict().items() if k not in ignored} == {
        k: v for k, v in before.to_dict().items() if k not in ignored
    }


def test_fields_may_be_overridden_when_loading_and_are_checked(tmp_path):
    config(temperature=2.0).save_pretrained(tmp_path)
    loaded = ZooterConfig.from_pretrained(tmp_path, experts=["x", {"name": "y"}], chat_context="all")
    assert loaded.experts == [ExpertSpec("x"), ExpertSpec("y")]
    assert loaded.id2label == {0: "x", 1: "y"}
    assert (loaded.chat_context, loaded.temperature) == ("all", 2.0)
    narrower = ZooterConfig.from_pretrained(tmp_path, encoder_config={"num_hidden_layers": 3})
    assert narrower.encoder_config.num_hidden_layers == 3
    assert narrower.encoder_config.hidden_size == 24
    with pytest.raises(ValueError, match="pooling"):
        ZooterConfig.from_pretrained(tmp_path, pooling="max")


def test_another_kind_of_model_is_no_router(tmp_path):
    BertConfig(hidden_size=24).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'bert', not of a Zooter router.*from_encoder"):
        ZooterConfig.from_pretrained(tmp_path)


def test_no_path_of_this_machine_is_saved(tmp_path):
    encoder = BertConfig(hidden_size=24)
    encoder.save_pretrained(tmp_path / "secret-folder")
    encoder = AutoConfig.from_pretrained(tmp_path / "secret-folder")
    config(encoder_config=encoder).save_pretrained(tmp_path / "router")
    assert "secret-folder" not in (tmp_path / "router" / "config.json").read_text()


def test_saved_config_refers_to_the_code_beside_it(tmp_path):
    config().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    modules = {reference.split(".")[0] for reference in saved["auto_map"].values()}
    modules.add(saved["custom_pipelines"]["zooter-routing"]["impl"].split(".")[0])
    assert modules == {"configuration_zooter", "modeling_zooter", "pipeline_zooter"}
    assert all((tmp_path / f"{module}.py").exists() for module in modules)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"experts": ["a", "b", "a"]}, "unique.*'a'"),
        ({"experts": ["a", ""]}, "non-empty"),
        ({"experts": ["a", " b"]}, "surrounding spaces"),
        ({"experts": ["a", {"model": "x"}]}, "needs the field `name`"),
        ({"experts": ["a", {"name": "b", "prize": 1}]}, "unknown fields.*prize"),
        ({"experts": [{"name": "a", "backend": "oven"}]}, "backend.*oven"),
        ({"experts": [{"name": "a", "input_price": -1}]}, "input_price.*-1"),
        ({"experts": [{"name": "a", "output_price": float("inf")}]}, "output_price.*inf"),
        ({"experts": [{"name": "a", "context_length": 0}]}, "context_length.*0"),
        ({"experts": [{"name": "a", "metadata": {"api_key": "sk-123"}}]}, "secret"),
        ({"experts": [{"name": "a", "base_url": "https://me:pw@host/v1"}]}, "password"),
        ({"pooling": "max"}, "pooling.*cls.*mean.*max"),
        ({"head": "forest"}, "head.*linear.*mlp.*cosine.*forest"),
        ({"chat_context": "some"}, "chat_context.*some"),
        ({"id2label": {0: "a"}}, "id2label.*1 experts.*2"),
        ({"id2label": {0: "b", 1: "a"}}, "id2label"),
        ({"num_labels": 5}, "num_labels.*5.*2 experts"),
        ({"max_query_tokens": 513}, "513.*512"),
        ({"max_query_tokens": 3}, "at least 8"),
        ({"temperature": 0.0}, "temperature.*0"),
        ({"head_dropout": 1.0}, "head_dropout.*1"),
        ({"head_share": 1.5}, "head_share.*1.5"),
        ({"head_hidden_size": 0}, "head_hidden_size"),
        ({"encoder_config": T5Config()}, "encoder-decoder"),
        ({"encoder_config": {"model_type": "no-such"}}, "no-such"),
    ],
)
def test_errors_say_what_was_wrong(fields, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        config(**fields)


def test_secret_never_appears_in_the_error():
    with pytest.raises(ValueError) as caught:
        ExpertSpec("a", metadata={"auth_token": "sk-very-secret"})
    assert "sk-very-secret" not in str(caught.value)
    with pytest.raises(ValueError) as caught:
        ExpertSpec("a", base_url="https://me:sk-very-secret@host/v1")
    assert "sk-very-secret" not in str(caught.value)


def test_harmless_metadata_is_not_taken_for_a_secret():
    ExpertSpec("a", metadata={"max_tokens": 5, "tokenizer": "bpe", "size": "7B"})


def test_wrong_type_of_a_field_is_refused():
    with pytest.raises(StrictDataclassFieldValidationError, match="max_query_tokens"):
        config(max_query_tokens="many")


def test_query_length_follows_from_the_encoder():
    assert config().max_query_tokens == 512
    assert config(encoder_config=BertConfig(max_position_embeddings=128)).max_query_tokens == 128
    # XLM-R counts positions from behind its padding index.
    xlmr = XLMRobertaConfig(max_position_embeddings=514, pad_token_id=1)
    assert config(encoder_config=xlmr).max_encoder_tokens == 512
