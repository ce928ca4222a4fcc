import json

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertForSequenceClassification, pipeline

from tests.conftest import ENCODERS
from zooter_hf import RewardTable, ZooterForRouting


@pytest.fixture
def scores(tmp_path):
    rows = [{"question": f"What is {n}?", "scores": {"a": n % 2, "b": 0.5}, "task": "math"} for n in range(4)]
    lines = [*map(json.dumps, rows), "{"]
    (tmp_path / "scores.jsonl").write_text("\n".join(lines))
    return "scores.jsonl"


@pytest.fixture
def classifier(tmp_path, tokenizer):
    config = ENCODERS["bert"](len(tokenizer))
    config.id2label = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    BertForSequenceClassification(config).save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    (tmp_path / "experts.yaml").write_text("LABEL_1: {name: b, input_price: 2}\nLABEL_0: a\nLABEL_2: a\n")
    return "classifier"


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_convert_says_what_it_read_and_what_it_left_out(zooter, scores, tmp_path):
    out = zooter("convert", scores, "rewards", "--from", "llmrouter").stdout
    assert "4 queries, 2 experts, 1 subsets (math)" in out
    assert "1 rows are left out" in out and "scores.jsonl, line 5" in out
    assert "zooter distill rewards" in out
    table = RewardTable.load(tmp_path / "rewards")
    assert table.rewards.tolist() == [[0.0, 0.5], [1.0, 0.5], [0.0, 0.5], [1.0, 0.5]]


def test_options_of_a_format(zooter, tmp_path):
    battles = [
        {"question": "Why?", "model_a": "a", "model_b": "b", "winner": "model_a", "language": language}
        for language in ("English", "German")
    ]
    (tmp_path / "battles.jsonl").write_text("\n".join(map(json.dumps, battles)))
    command = ("convert", "battles.jsonl", "rewards.jsonl", "--from", "arena", "--option")
    assert "no options ['topic']" in zooter(*command, "topic=x", check=False).stderr
    assert "'penalty' is not NAME=VALUE" in zooter(*command, "penalty", check=False).stderr
    assert (
        "`penalty` must be positive, got -1"
        in zooter(
            *command, "penalty=-1", "--option", "mode=bradley_terry", "--option", "clusters=language", check=False
        ).stderr
    )
    assert files(tmp_path) == ["battles.jsonl"]
    out = zooter(*command, "mode=bradley_terry", "--option", "clusters=language").stdout
    assert "2 queries, 2 experts, no subsets" in out
    assert RewardTable.load(tmp_path / "rewards.jsonl").tags == [["English"], ["German"]]


def test_what_is_there_stays(zooter, scores, classifier, tmp_path):
    (tmp_path / "rewards.jsonl").write_text("mine")
    for source_format in ("llmrouter", "sequence_classification"):
        error = zooter("convert", "nowhere", "rewards.jsonl", "--from", source_format, check=False).stderr
        assert "rewards.jsonl is there already" in error and "--overwrite" in error  # before the source is looked at
    assert (tmp_path / "rewards.jsonl").read_text() == "mine"
    zooter("convert", scores, "rewards.jsonl", "--from", "llmrouter", "--overwrite")
    assert len(RewardTable.load(tmp_path / "rewards.jsonl")) == 4

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    command = ("convert", classifier, "mine", "--from", "sequence_classification", "--experts", "experts.yaml")
    assert "is there already" in zooter(*command, check=False).stderr
    assert "holds no router, and is not replaced" in zooter(*command, "--overwrite", check=False).stderr
    assert files(tmp_path / "mine") == ["thesis.txt"]


def test_a_checkpoint_becomes_the_folder_of_a_router(zooter, classifier, tmp_path):
    command = ("convert", classifier, "router", "--from", "sequence_classification", "--experts", "experts.yaml")
    out = zooter(*command, "--option", "chat_context=all").stdout
    assert "a router over 2 experts (a, b)" in out and "logits are those of the checkpoint" in out
    config = AutoConfig.from_pretrained(tmp_path / "router")
    assert config.outputs_per_expert == [2, 1] and config.chat_context == "all"
    assert config.experts[1].input_price == 2
    assert "# router\n" in (tmp_path / "router" / "README.md").read_text()
    assert pipeline("zooter-routing", model=str(tmp_path / "router"))("Why?", top_k=1)[0]["label"] == "a"
    before = (tmp_path / "router" / "model.safetensors").read_bytes()

    (tmp_path / "experts.yaml").write_text("[a, b]")
    error = zooter(*command, "--overwrite", check=False).stderr
    assert "2 experts for the 3 labels" in error
    assert (tmp_path / "router" / "model.safetensors").read_bytes() == before, "a failure leaves what was there"
    (tmp_path / "experts.yaml").write_text("[a, b, c]")
    zooter(*command, "--overwrite")
    assert AutoConfig.from_pretrained(tmp_path / "router").expert_names == ["a", "b", "c"]
    zooter("convert", classifier, "strong-or-weak", "--from", "routellm")
    assert AutoConfig.from_pretrained(tmp_path / "strong-or-weak").outputs_per_expert == [1, 2]


def test_a_failure_while_writing_leaves_nothing(zooter, classifier, tmp_path, monkeypatch):
    save = ZooterForRouting.save_pretrained

    def fail(router, folder, **kwargs):
        save(router, folder, **kwargs)
        raise OSError("no space left on device")

    monkeypatch.setattr(ZooterForRouting, "save_pretrained", fail)
    there = files(tmp_path)
    command = ("convert", classifier, "router", "--from", "sequence_classification", "--experts", "experts.yaml")
    assert "no space left" in zooter(*command, check=False).stderr
    assert files(tmp_path) == there


def test_routerdc_is_a_table_or_a_checkpoint(zooter, tokenizer, tmp_path):
    (tmp_path / "gsm8k.json").write_text(json.dumps([{"question": "1+1?", "scores": {"a": 0.5, "b": 1}}]))
    zooter("convert", "gsm8k.json", "rewards.jsonl", "--from", "routerdc")
    assert len(RewardTable.load(tmp_path / "rewards.jsonl")) == 1

    encoder = AutoModel.from_config(ENCODERS["deberta-v2"](len(tokenizer)))
    encoder.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    state = {f"backbone.{name}": value for name, value in encoder.state_dict().items()}
    torch.save({**state, "embeddings.weight": torch.randn(2, 16)}, tmp_path / "best_model.pth")
    (tmp_path / "experts.json").write_text('["a", "b"]')
    command = ("convert", "best_model.pth", "router", "--from", "routerdc", "--option", "encoder=encoder")
    assert "does not name the experts" in zooter(*command, check=False).stderr
    zooter(*command, "--experts", "experts.json")
    assert AutoConfig.from_pretrained(tmp_path / "router").head == "cosine"


def test_an_encoder_has_yet_to_be_trained(zooter, tokenizer, tmp_path):
    folder = tmp_path / "encoder"
    AutoModel.from_config(ENCODERS["bert"](len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (tmp_path / "experts.json").write_text('["a", "b"]')
    command = ("convert", "encoder", "router", "--from", "sentence_transformers")
    assert "knows no experts" in zooter(*command, check=False).stderr
    assert "Its head is random: train it" in zooter(*command, "--experts", "experts.json").stdout
    assert AutoConfig.from_pretrained(tmp_path / "router").pooling == "cls"


def test_mistakes(zooter, scores, classifier, tmp_path):
    error = zooter("convert", scores, "x", "--from", "y", check=False).stderr
    assert "mixinstruct, routerbench, routerdc) and for checkpoints (routellm, routerdc, " in error
    assert "nowhere is not there" in zooter("convert", "nowhere", "x", "--from", "routerdc", check=False).stderr
    assert "needs a *.csv" in zooter("convert", scores, "x", "--from", "routerbench", check=False).stderr
    command = ("convert", scores, "x", "--from", "llmrouter")
    assert "--experts is for checkpoints" in zooter(*command, "--experts", "e.yaml", check=False).stderr
    (tmp_path / "scores.jsonl").write_text("{\n{")
    assert "line 2" in zooter(*command, check=False).stderr
    command = ("convert", classifier, "x.jsonl", "--from", "sequence_classification")
    assert "give a folder" in zooter(*command, check=False).stderr
    error = zooter("convert", "./nowhere", "x", "--from", "sequence_classification", check=False).stderr
    assert "./nowhere is not there" in error
    command = ("convert", classifier, "x", "--from", "sequence_classification")
    assert "are placeholders" in zooter(*command, check=False).stderr
    assert (
        "no fields ['pool']"
        in zooter(*command, "--experts", "experts.yaml", "--option", "pool=cls", check=False).stderr
    )
    assert not (tmp_path / "x").exists()


def test_exports(zooter, saved_router, tmp_path):
    out = zooter("convert", saved_router, tmp_path / "own", "--to", "torch-export").stdout
    assert "the same expert for 100.00%" in out
    assert (tmp_path / "own" / "config.json").exists(), "the router is there as well"
    again = zooter("convert", saved_router, tmp_path / "own", "--to", "torch-export", check=False)
    assert "is there already" in again.stderr


def test_an_export_is_routed_with(zooter, saved_router, tmp_path):
    zooter("convert", saved_router, "own", "--to", "onnx")
    rows = [
        json.loads(zooter("route", "-m", "./own", "--json", *more, "Who wrote this novel?").stdout)
        for more in ([], ["--runtime", "onnx"])
    ]
    assert rows[0]["decision"]["expert"] == rows[1]["decision"]["expert"]
    missing = zooter("route", "-m", "./own", "--runtime", "onnx-int8", "Why?", check=False).stderr
    assert "holds no onnx/model_int8.onnx" in missing and "zooter convert" in missing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--from"),
        (["--from", "llmrouter", "--to", "onnx"], "--to"),
        (["--to", "stone"], "no export 'stone'"),
        (["--to", "sequence-classification"], "mean"),
        (["--to", "onnx-int8"], "at least 64"),
        (["--from", "llmrouter", "--queries", "q.txt"], "--queries is for --to"),
    ],
)
def test_mistakes_with_exports(zooter, saved_router, tmp_path, options, message):
    assert message in zooter("convert", saved_router, "new", *options, check=False).stderr
    assert not (tmp_path / "new").exists()
