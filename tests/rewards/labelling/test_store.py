"""Results that outlive the run that made them."""

import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zooter_hf.rewards.labelling.store import Store, key_of


def test_what_was_appended_is_there_again(tmp_path):
    store = Store(tmp_path / "s")
    store.append([("a", {"text": "ä\n"}), ("b", [1.5, None])])
    store.append([("c", None)])
    again = Store(tmp_path / "s")
    assert len(again) == 3 and "a" in again and "d" not in again
    assert again["a"] == store["a"] == {"text": "ä\n"}
    assert again["b"] == [1.5, None] and again["c"] is None and again.get("d") is None


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 400))
def test_a_file_cut_anywhere_loses_only_what_was_not_finished(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("store")
    store = Store(folder)
    ends = []
    for number in range(5):
        store.append([(f"key{number}", "x" * 20 * number)])
        ends.append((folder / "00000.jsonl").stat().st_size)
    with (folder / "00000.jsonl").open("r+b") as file:
        file.truncate(cut) if cut < ends[-1] else None
    whole = sum(end <= cut for end in ends)
    again = Store(folder)
    assert len(again) == whole
    again.append([("new", 1)])
    assert len(Store(folder)) == whole + 1 and Store(folder)["new"] == 1


def test_shards_are_read_together(tmp_path):
    first, second = Store(tmp_path, 0), Store(tmp_path, 1)
    first.append([("a", 1)])
    second.append([("b", 2)])
    assert "b" not in first
    first.refresh()
    assert first["b"] == 2 and len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.append([("a", 1)])
    size = (tmp_path / "00000.jsonl").stat().st_size

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device\. The 1 results before are kept; make room"):
        store.append([("b", 2)])
    assert (tmp_path / "00000.jsonl").stat().st_size == size
    assert "b" not in store and len(Store(tmp_path)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OSError, match="cannot be written to"):
        Store(tmp_path / "s")


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "s").write_text("")
    with pytest.raises(OSError, match=r"s cannot be written to .*Give another output folder"):
        Store(tmp_path / "s")


def test_keys():
    assert key_of({"b": 1, "a": [2]}) == key_of({"a": [2], "b": 1})
    assert len({key_of(1), key_of("1"), key_of([1]), key_of(1, None), key_of(None, 1), key_of("1", "")}) == 6
