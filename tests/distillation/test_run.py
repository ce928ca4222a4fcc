"""The whole run, from a table to a router on the disk."""

import json

import pytest
import torch
from transformers import AutoModel, pipeline

from tests.distillation.conftest import make_rows
from zooter_hf import DistillationArguments, RewardTable
from zooter_hf.distillation import distill


@pytest.fixture(scope="module")
def encoder(make_router, tmp_path_factory):
    """Folder of a bare encoder with its tokenizer."""
    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    router = make_router()
    router.encoder.save_pretrained(folder)
    router.tokenizer.save_pretrained(folder)
    return folder


def arguments(**changes):
    settings = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 60,
        "freeze_encoder": True,
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "steps",
        "save_steps": 20,
        **changes,
    }
    return DistillationArguments("unused", **settings)


def test_router_card_and_evaluation_are_written_together(table, encoder, tmp_path):
    run = distill(
        table, encoder, tmp_path / "router", arguments(), test_share=0.25, base_encoder="someone/tiny", name="example"
    )
    assert not (tmp_path / "router.unfinished").exists()
    route = pipeline("zooter-routing", model=str(tmp_path / "router"))
    assert route("Prove that the square root of two is irrational.", top_k=1)[0]["label"] == "math-7b"

    report = json.loads((tmp_path / "router" / "evaluation" / "evaluation.json").read_text())
    assert report["queries"] == 6
    card = (tmp_path / "router" / "README.md").read_text()
    assert "# example" in card and "someone/tiny" in card and "best single model" in card
    training = AutoModel.from_pretrained(tmp_path / "router").config.training
    assert training["evaluation"]["queries"] == 6
    assert training["queries"] == 18
    assert training["beta"] == 0.1 and training["tau"] == 0.25
    assert run.router.config.training == training
    assert str(tmp_path) not in card + json.dumps(training), "a path of the training machine"


def test_with_a_test_table_all_of_the_table_is_trained_on(table, encoder, tmp_path):
    run = distill(table, encoder, tmp_path / "router", arguments(), test_table=table.select(range(9)))
    assert run.router.config.training["queries"] == 24
    assert run.report.queries == 9


def test_without_a_test_share_there_is_no_evaluation(table, encoder, tmp_path):
    run = distill(table, encoder, tmp_path / "router", arguments(), test_share=0.0)
    assert run.report is None
    assert not (tmp_path / "router" / "evaluation").exists()
    assert "Not recorded" in (tmp_path / "router" / "README.md").read_text()


@pytest.mark.parametrize("changes", [{"freeze_encoder": False, "num_train_epochs": 2}, {"early_stopping_patience": 2}])
def test_other_ways_of_training(changes, table, encoder, tmp_path):
    run = distill(table, encoder, tmp_path / "router", arguments(**changes), test_share=0.25)
    assert run.report.queries == 6
    assert (tmp_path / "router" / "model.safetensors").exists()


def test_without_tags_clusters_take_their_place(encoder, tmp_path):
    rows = [{**row, "tags": []} for row in make_rows(["math-7b", "code-9b", "chat-70b"])]
    run = distill(RewardTable.from_rows(rows), encoder, tmp_path / "router", arguments(), clusters=3, test_share=0.25)
    assert "3 clusters of query embeddings" in run.router.config.training["method"]
    run = distill(RewardTable.from_rows(rows), encoder, tmp_path / "plain", arguments(), clusters=0, test_share=0.25)
    assert "without label enhancement" in run.router.config.training["method"]


def stop_after(monkeypatch, steps):
    """Has training stop as by Ctrl-C."""
    from transformers import Trainer

    original = Trainer.training_step
    left = [steps]

    def step(self, *args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", step)


@pytest.mark.parametrize("changes", [{}, {"freeze_encoder": False, "num_train_epochs": 8}])
def test_a_run_that_was_stopped_goes_on(changes, table, encoder, tmp_path, monkeypatch):
    whole = distill(table, encoder, tmp_path / "whole", arguments(**changes), test_share=0.25)
    with monkeypatch.context() as patch:
        stop_after(patch, 33)
        with pytest.raises(KeyboardInterrupt):
            distill(table, encoder, tmp_path / "router", arguments(**changes), test_share=0.25)
    assert not (tmp_path / "router").exists()
    assert (tmp_path / "router.unfinished" / "checkpoints" / "checkpoint-20").is_dir()

    with pytest.raises(FileExistsError, match="unfinished run that differs in beta.*overwrite"):
        distill(table, encoder, tmp_path / "router", arguments(beta=0.5, **changes), test_share=0.25)
    with monkeypatch.context() as patch:
        stop_after(patch, 10_000)
        resumed = distill(table, encoder, tmp_path / "router", arguments(**changes), test_share=0.25)
    for name, value in whole.router.state_dict().items():
        assert torch.equal(value, resumed.router.state_dict()[name]), name


def test_embeddings_are_computed_once(table, encoder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            distill(table, encoder, tmp_path / "router", arguments(), test_share=0.0)
    monkeypatch.setattr("zooter_hf.distillation.unfinished.predict", None)
    distill(table, encoder, tmp_path / "router", arguments(), test_share=0.0)


def test_nothing_is_overwritten_unless_asked_for(table, encoder, tmp_path):
    folder = tmp_path / "router"
    distill(table, encoder, folder, arguments(num_train_epochs=1))
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="holds a router.*overwrite"):
        distill(table, encoder, folder, arguments())
    assert (folder / "model.safetensors").read_bytes() == before
    (folder / "notes.txt").write_text("mine")
    distill(table, encoder, folder, arguments(), overwrite=True)
    assert (folder / "model.safetensors").read_bytes() != before
    assert (folder / "notes.txt").read_text() == "mine"

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        distill(table, encoder, tmp_path / "full", arguments())
    with pytest.raises(FileExistsError, match="is a file"):
        distill(table, encoder, folder / "notes.txt", arguments())


def test_errors_come_before_anything_is_written(table, encoder, tmp_path):
    with pytest.raises(OSError, match="no encoder folder"):
        distill(table, tmp_path / "nowhere", tmp_path / "router", arguments())
    with pytest.raises(ValueError, match="single expert"):
        distill(table.select_experts(["math-7b"]), encoder, tmp_path / "router", arguments())
    with pytest.raises(ValueError, match="the test table has others"):
        other = table.rename_experts({"math-7b": "other"})
        distill(table, encoder, tmp_path / "router", arguments(), test_table=other)
    with pytest.raises(ValueError, match="test_share"):
        distill(table, encoder, tmp_path / "router", arguments(), test_share=1.5)
    assert not list(tmp_path.glob("router*"))
