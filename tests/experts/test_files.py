"""Lists of experts in files: what is read, and what an error says."""

import json

import pytest
import yaml

from zooter_hf.experts import load_experts, make_expert


URL = "http://localhost:8000/v1"
ENTRY = {"name": "a", "backend": "endpoint", "model": "m", "base_url": URL, "options": {"concurrency": 2}}


def write(folder, entries, name="experts.yaml"):
    path = folder / name
    path.write_text(
        json.dumps(entries) if name.lower().endswith(".json") else yaml.safe_dump(entries), encoding="utf-8"
    )
    return path


@pytest.mark.parametrize("name", ["experts.yaml", "experts.yml", "experts.json", "EXPERTS.JSON"])
@pytest.mark.parametrize("wrap", [list, lambda entries: {"experts": entries, "model_type": "zooter"}])
def test_reads_lists_and_mappings(tmp_path, name, wrap):
    specs = load_experts(write(tmp_path, wrap([ENTRY, {**ENTRY, "name": "b", "input_price": 0.5}]), name))
    assert [spec.name for spec in specs] == ["a", "b"]
    assert specs[0].to_dict() == ENTRY
    assert specs[1].input_price == 0.5


def test_reads_what_a_person_writes(tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(f"""
# Our servers.
- name: Größe 7B
  backend: endpoint
  model: org/model
  base_url: {URL}
  output_price: 1
  options:
    api_key_env: OUR_KEY
    extra_body: {{seed: null}}
""")
    (spec,) = load_experts(str(path))
    assert spec.name == "Größe 7B"
    assert make_expert(spec).spec.options == {"api_key_env": "OUR_KEY", "extra_body": {"seed": None}}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"backend": "transfromers"}, r"'b'.*`backend`.*transformers.*'transfromers'"),
        ({"backend": None}, r"'b'.*no `backend`.*transformers"),
        ({"model": None}, r"'b'.*`model`"),
        ({"name": "a"}, r"'a'.*entry 1"),
        ({"name": ""}, "`name`"),
        ({"input_price": "cheap"}, r"'b'.*`input_price`.*'cheap'"),
        ({"url": URL}, r"'b'.*unknown fields"),
        ({"options": {"tiemout": 3}}, r"'b'.*\['tiemout'\]"),
        ({"options": {"timeout": -3}}, r"'b'.*`options.timeout`"),
        ({"options": {"api_key": "sk-secret"}}, r"'b'.*'api_key'.*secret"),
        ({"options": [1]}, r"'b'.*`options`"),
    ],
)
def test_errors_name_file_entry_and_field(tmp_path, entry, message):
    path = write(tmp_path, [ENTRY, {**ENTRY, "name": "b", **entry}])
    with pytest.raises(ValueError, match=rf"experts\.yaml, entry 2.*{message}") as error:
        load_experts(path)
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize("entry", ["just-a-name", None, 3, ["a"], {"backend": "endpoint", "api_key": "sk-secret"}])
def test_entries_that_are_no_experts(tmp_path, entry):
    with pytest.raises(ValueError, match=r"experts\.yaml, entry 1 .*`?name`?") as error:
        load_experts(write(tmp_path, [entry]))
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize("content", [None, "text", [], {}, {"models": []}, {"experts": {}}, {"experts": []}])
def test_files_without_a_list(tmp_path, content):
    with pytest.raises(ValueError, match=r"experts\.yaml.*list"):
        load_experts(write(tmp_path, content))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(OSError, match=r"nowhere\.yaml"):
        load_experts(tmp_path / "nowhere.yaml")
    for name, content, message in [
        ("experts.txt", b"[]", "must end in"),
        ("experts.json", b"[{", "not JSON"),
        ("experts.yaml", b"- name: a\n  api_key: sk-secret: x\n", "line 2 is not YAML"),
        ("experts.yaml", b"!!python/object/apply:os.getcwd []", "not YAML"),
        ("experts.yaml", b"\xff\xfe\x00a", "UTF-8|YAML"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}.*{message}") as error:
            load_experts(path)
        assert "sk-secret" not in str(error.value)


def test_folders_beside_the_file_are_found_from_anywhere(tmp_path, monkeypatch):
    pytest.importorskip("zooter_hf.experts.local")
    (tmp_path / "models" / "small").mkdir(parents=True)
    local = {"name": "a", "backend": "transformers", "model": "models/small"}
    hub = {"name": "b", "backend": "transformers", "model": "org/model"}
    adapter = {**hub, "name": "d", "backend": "adapter", "options": {"base_model": "models/small"}}
    path = write(tmp_path, [local, hub, {**ENTRY, "name": "c", "model": "models/small"}, adapter])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert [spec.model for spec in load_experts(path)] == [
        str(tmp_path / "models" / "small"),
        "org/model",
        "models/small",
        "org/model",
    ]
    assert load_experts(path)[3].options == {"base_model": str(tmp_path / "models" / "small")}
    monkeypatch.chdir(tmp_path)
    assert load_experts("experts.yaml")[0].model == "models/small", "no path of this machine is made up"
    with pytest.raises(ValueError, match=r"entry 1.*'a'.*\./models/large"):
        load_experts(write(tmp_path, [{**local, "model": "./models/large"}]))
