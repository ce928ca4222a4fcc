import json

import pytest
import torch
from transformers import AutoModel

from tests.conftest import EXPERTS, QUERIES
from zooter_hf import ZooterForRouting
from zooter_hf.conversion.checkpoints import load
from zooter_hf.conversion.checkpoints.sentence_transformers import load_encoder


FLAGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken")
MODULES = ("Transformer", "Pooling", "Normalize")


@pytest.fixture
def make_folder(make_router, tokenizer, tmp_path):
    """Writes a folder as sentence-transformers does; returns it and the encoder."""

    def make(pooling="mean_tokens", modules=MODULES, transformer="", settings=None, prompts=None, pooling_config=None):
        folder = tmp_path / "encoder"
        encoder = make_router("bert").encoder
        encoder.save_pretrained(folder / transformer)
        tokenizer.save_pretrained(folder / transformer)
        paths = [transformer, *(f"{index}_{kind}" for index, kind in enumerate(modules) if index)]
        write(
            folder / "modules.json",
            [
                {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for index, (kind, path) in enumerate(zip(modules, paths, strict=True))
            ],
        )
        modes = pooling_config or {f"pooling_mode_{name}": name == pooling for name in FLAGS}
        write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, "include_prompt": True, **modes})
        write(folder / transformer / "sentence_bert_config.json", {"max_seq_length": 24, **(settings or {})})
        write(folder / "config_sentence_transformers.json", prompts or {"prompts": {}, "default_prompt_name": None})
        return folder, encoder

    return make


def write(path, content):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(content))


def embed(router, queries):
    inputs = router.tokenizer(list(queries), padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        return router(**inputs).query_embedding


def by_hand(encoder, tokenizer, query, pooling, normalized):
    """Sentence embeddings as sentence-transformers defines them, of one text, without padding."""
    with torch.no_grad():
        states = encoder(**tokenizer(query, truncation=True, max_length=24, return_tensors="pt")).last_hidden_state[0]
    embedding = states.mean(dim=0) if pooling == "mean_tokens" else states[0]
    return embedding / embedding.pow(2).sum().sqrt() if normalized else embedding


@pytest.mark.parametrize("transformer", ["", "0_Transformer"])
@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
@pytest.mark.parametrize("normalized", [True, False])
def test_query_embeddings_are_sentence_embeddings(make_folder, tokenizer, transformer, pooling, normalized, tmp_path):
    folder, encoder = make_folder(pooling, MODULES if normalized else MODULES[:2], transformer)
    router = load_encoder(str(folder), EXPERTS, head="cosine")
    assert router.config.max_query_tokens == 24 and router.config.head == "cosine"
    router.save_pretrained(tmp_path / "router")
    router = ZooterForRouting.from_pretrained(tmp_path / "router")
    expected = torch.stack([by_hand(encoder, tokenizer, query, pooling, normalized) for query in QUERIES])
    torch.testing.assert_close(embed(router, QUERIES), expected, atol=1e-5, rtol=1e-4)
    assert str(folder) not in (tmp_path / "router" / "config.json").read_text()


def test_newer_pooling_configs_and_overrides(make_folder):
    folder, _ = make_folder(pooling_config={"pooling_mode": "cls"}, settings={"max_seq_length": None})
    router = load(folder, "sentence_transformers", EXPERTS, normalize=False)
    assert (router.config.pooling, router.config.normalize, router.config.max_query_tokens) == ("cls", False, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max_tokens"}, r"pools by \['pooling_mode_max_tokens'\]"),
        ({"pooling": "lasttoken"}, r"pools by \['pooling_mode_lasttoken'\]"),
        ({"pooling_config": {"pooling_mode": ["mean", "cls"]}}, r"pools by \['mean', 'cls'\]"),
        ({"pooling_config": {f"pooling_mode_{name}": True for name in FLAGS[:2]}}, "_cls_token', 'pooling_mode_mean"),
        ({"modules": ("Transformer", "Pooling", "Dense")}, "made of Transformer, Pooling, Dense"),
        ({"modules": ("Transformer", "Pooling", "Dense", "Normalize")}, "Dense, Normalize"),
        (
            {"prompts": {"prompts": {"query": "search: "}, "default_prompt_name": "query"}},
            "the prompt 'search: ' before every text",
        ),
    ],
)
def test_what_a_router_cannot_do_is_refused_by_name(make_folder, options, message):
    folder, _ = make_folder(**options)
    with pytest.raises(ValueError, match=message):
        load(folder, "sentence_transformers", EXPERTS)


def test_lowering_is_refused_where_the_tokenizer_does_not_do_it(make_folder):
    folder, _ = make_folder(settings={"do_lower_case": True})
    load(folder, "sentence_transformers", EXPERTS)  # its tokenizer lowers as well
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"] = None
    vocabulary = content["model"]["vocab"]
    vocabulary["Explain"] = vocabulary.pop("explain")  # a word that is known in upper case alone
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="lowers texts before"):
        load(folder, "sentence_transformers", EXPERTS)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    assert load(folder, "sentence_transformers", EXPERTS).num_labels == 3


def test_other_folders(make_folder, make_router, tokenizer):
    folder, _ = make_folder()
    for experts in (None, [], {"a": "b"}):
        with pytest.raises(ValueError, match="knows no experts"):
            load(folder, "sentence_transformers", experts)
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ValueError, match="does not say how it pools"):
        load(folder, "sentence_transformers", EXPERTS)
    (folder / "modules.json").unlink()
    with pytest.raises(OSError, match=r"(?s)no encoder of sentence-transformers.*modules\.json.*from_encoder"):
        load(folder, "sentence_transformers", EXPERTS)
    with pytest.raises(OSError, match="nowhere is no encoder"):
        load_encoder(folder / "nowhere", EXPERTS)


def test_weights_come_from_safetensors_alone(make_folder):
    folder, encoder = make_folder()
    (folder / "model.safetensors").unlink()
    torch.save(encoder.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load(folder, "sentence_transformers", EXPERTS)
    assert AutoModel.from_pretrained(folder)  # the library alone would have taken the pickle
