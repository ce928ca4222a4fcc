import os
import pickle

import pytest
import torch
from torch import nn
from transformers import AutoModel, pipeline

from tests.conftest import ENCODERS, QUERIES
from zooter_hf.conversion.checkpoints import load


EXPERTS = ["org/math", "org/code", "org/chat"]


class Module(nn.Module):
    """What RouterDC trains: an encoder, and an embedding an expert."""

    def __init__(self, backbone, experts=3, width=16):
        super().__init__()
        self.backbone = backbone
        self.embeddings = nn.Embedding(experts, width)


@pytest.fixture(scope="module")
def trained(tokenizer, tmp_path_factory):
    """Folder of the encoder that training started from, and what was trained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoders") / "mdeberta"
    start = AutoModel.from_config(ENCODERS["deberta-v2"](len(tokenizer)))
    start.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    module = Module(AutoModel.from_pretrained(folder)).eval()
    for parameter in module.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return folder, module


def save(state, tmp_path, name="best_model.pth"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


def states(module, tokenizer):
    with torch.no_grad():
        inputs = [tokenizer(query, return_tensors="pt", return_token_type_ids=False) for query in QUERIES]
        return torch.cat([module.backbone(**one).last_hidden_state[:, 0] for one in inputs])


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_logits_are_cosines_over_the_temperature(trained, tokenizer, tmp_path, temperature):
    encoder, module = trained
    path = save(module.state_dict(), tmp_path)
    router = load(path, "routerdc", EXPERTS, encoder=str(encoder), temperature=temperature)
    router.save_pretrained(tmp_path / "router")
    router = AutoModel.from_pretrained(tmp_path / "router")
    assert router.expert_names == EXPERTS
    assert (router.config.head, router.config.pooling, router.config.max_query_tokens) == ("cosine", "cls", 64)
    cosines = torch.cosine_similarity(states(module, tokenizer)[:, None], module.embeddings.weight[None], dim=-1)
    assert cosines.std(dim=0).min() > 1e-2
    with torch.no_grad():
        actual = torch.cat([router(**router.tokenizer(query, return_tensors="pt")).logits for query in QUERIES])
    torch.testing.assert_close(actual, cosines / temperature, atol=1e-5, rtol=1e-5)


def test_inner_products(trained, tokenizer, tmp_path):
    encoder, module = trained
    options = {"encoder": str(encoder), "similarity": "inner", "temperature": 2}
    router = load(save(module.state_dict(), tmp_path), "routerdc", EXPERTS, **options)
    with torch.no_grad():
        actual = torch.cat([router(**tokenizer(query, return_tensors="pt")).logits for query in QUERIES])
        torch.testing.assert_close(actual, states(module, tokenizer) @ module.embeddings.weight.T / 2)


def test_long_queries_keep_their_end(trained, tokenizer, tmp_path):
    encoder, module = trained
    router = load(save(module.state_dict(), tmp_path), "routerdc", EXPERTS, encoder=str(encoder))
    route = pipeline("zooter-routing", model=router, tokenizer=router.tokenizer)
    ids = tokenizer(" ".join(QUERIES * 9))["input_ids"]
    kept = torch.tensor([ids[:1] + ids[-63:]])  # as a tokenizer that truncates on the left has it
    with torch.no_grad():
        state = module.backbone(input_ids=kept).last_hidden_state[:, 0]
    expected = torch.cosine_similarity(state, module.embeddings.weight, dim=-1).softmax(-1)
    scores = {found["label"]: found["score"] for found in route(" ".join(QUERIES * 9))}
    assert [scores[name] for name in EXPERTS] == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_constant_of_older_versions_does_no_harm(trained, tmp_path):
    encoder, module = trained
    state = {**module.state_dict(), "backbone.embeddings.position_ids": torch.arange(64)[None]}
    assert load(save(state, tmp_path), "routerdc", EXPERTS, encoder=str(encoder)).num_labels == 3


class Payload:
    """Runs a command where a pickle of it is loaded without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_of_more_than_tensors_is_refused_and_not_run(trained, tmp_path):
    encoder, module = trained
    attack = {**module.state_dict(), "backbone.x": Payload(tmp_path / "owned")}
    for path in (save(attack, tmp_path), save(module, tmp_path, "whole.pth")):
        with pytest.raises(ValueError, match=r"pickle of more than tensors.*`state_dict\(\)` alone"):
            load(path, "routerdc", EXPERTS, encoder=str(encoder))
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(attack["backbone.x"], protocol=2))
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("plain.pth", "empty.pth"):
        with pytest.raises(ValueError, match="is not read: it is damaged, or a pickle"):
            load(tmp_path / name, "routerdc", EXPERTS, encoder=str(encoder))
    assert not (tmp_path / "owned").exists()


def test_files_of_another_shape_are_refused(trained, tmp_path):
    encoder, module = trained
    state = module.state_dict()
    less = {key: value for key, value in state.items() if "rel_emb" not in key}
    words = "backbone.embeddings.word_embeddings.weight"

    def refuse(message, state=state, experts=EXPERTS, **options):
        with pytest.raises(ValueError, match=message):
            load(save(state, tmp_path), "routerdc", experts, encoder=str(encoder), **options)

    refuse("has 3 expert embeddings and does not name the experts.*--experts FILE", experts=None)
    refuse("2 experts for the 3 labels", experts=["a", "b"])
    refuse("no state dict of RouterDC", {f"module.{key}": value for key, value in state.items()})
    refuse("no state dict of RouterDC.*classifier", {**state, "classifier.weight": torch.zeros(2)})
    refuse("holds no state dict, but list", [torch.zeros(2)])
    refuse("2 are missing, unknown.*'x'", {**less, "backbone.x": torch.zeros(1)})
    refuse("of another shape.*word_embeddings", {**state, words: torch.zeros(3, 16)})
    refuse("width 8, the states of the encoder 16", {**state, "embeddings.weight": torch.zeros(3, 8)})
    refuse("must be one of .'cos', 'inner'.", similarity="l2")
    refuse("must be positive and finite", temperature=0)
    with pytest.raises(OSError, match="is no file"):
        load(encoder, "routerdc", EXPERTS)
