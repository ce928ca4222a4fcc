"""Where exports are written, and what happens when they cannot be."""

import pytest

from tests.conftest import EXPERTS
from zooter_hf import ZooterForRouting
from zooter_hf.conversion.exports import FORMATS, checks, export, torch_export


@pytest.fixture
def router(make_router):
    return make_router(head="mlp", head_activation="tanh", pooling="cls")


def test_every_format_has_the_same_shape():
    from importlib import import_module

    for format in FORMATS:
        module = import_module(f"zooter_hf.conversion.exports.{format.replace('-', '_')}")
        assert module.PRODUCES and isinstance(module.WHOLE, bool) and callable(module.write)


def test_a_failed_export_leaves_nothing(router, tmp_path, monkeypatch):
    monkeypatch.setattr(torch_export, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="too far from the router"):
        export(router, tmp_path / "out", "torch-export")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(router, tmp_path):
    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export(router, tmp_path / "classifier", "sequence-classification")
    assert [path.name for path in (tmp_path / "classifier").iterdir()] == ["notes.txt"]
    export(router, tmp_path / "classifier", "sequence-classification", overwrite=True)
    assert not (tmp_path / "classifier" / "notes.txt").exists()  # a whole model replaces the folder
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        export(router, tmp_path / "file", "onnx")


def test_the_routers_own_folder_is_never_replaced(router, tmp_path):
    router.save_pretrained(tmp_path / "router")
    loaded = ZooterForRouting.from_pretrained(tmp_path / "router")
    with pytest.raises(FileExistsError, match="folder of the router itself"):
        export(loaded, tmp_path / "router", "sequence-classification", overwrite=True)
    assert ZooterForRouting.from_pretrained(tmp_path / "router").expert_names == router.expert_names


def test_graphs_join_the_folder_of_their_own_router_only(make_router, router, tmp_path):
    router.save_pretrained(tmp_path / "router")
    before = {path.name: path.read_bytes() for path in (tmp_path / "router").iterdir()}
    assert export(router, tmp_path / "router", "torch-export").agreement == 1
    assert {path.name for path in (tmp_path / "router").iterdir()} == {*before, "model.pt2"}
    assert all((tmp_path / "router" / name).read_bytes() == content for name, content in before.items())
    with pytest.raises(FileExistsError, match="model.pt2 is there already"):
        export(router, tmp_path / "router", "torch-export")
    with pytest.raises(ValueError, match="holds a router for"):
        export(make_router(experts=EXPERTS[:2]), tmp_path / "router", "torch-export", overwrite=True)


def test_mistakes(router, tmp_path):
    with pytest.raises(ValueError, match="no export 'gguf'. There are sequence-classification, merged"):
        export(router, tmp_path / "out", "gguf")
    with pytest.raises(ValueError, match="at least 64 are needed, got 1"):
        export(router, tmp_path / "out", "onnx-int8", queries=["Why?"])
    with pytest.raises(ValueError, match="no adapters"):
        export(router, tmp_path / "out", "merged")
    assert list(tmp_path.iterdir()) == []


def test_the_check_says_how_close_an_export_is():
    import torch

    ours = torch.tensor([[0.6, 0.4], [0.2, 0.8], [0.51, 0.49], [0.7, 0.3]])
    theirs = torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.49, 0.51], [0.7, 0.3]])
    check = checks.compare("x", ours, theirs)
    assert check.queries == 4 and check.agreement == 0.75 and check.largest_difference == pytest.approx(0.1)
    assert "75.00%" in str(check) and "4 queries" in str(check)
    assert check.require(0.75) is check
    with pytest.raises(ValueError, match="too far"):
        check.require(0.9)
    with pytest.raises(ValueError, match="too far"):
        check.require(0.5, difference=0.05)
