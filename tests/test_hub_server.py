"""The real client against the local Hub: what it stores, what it hides, and how it fails."""

from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants, errors, file_download, hf_hub_download, snapshot_download
from huggingface_hub.utils import _http

from tests.hub_server import HubServer


REPO = "user/tiny"
CARD = "---\nlicense: mit\n---\n# Tiny\n"
WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # whatever the rest of the suite runs with
    # Telemetry asks the Hub that the client was configured with at import, which is the real one.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    # The client waits between its retries; other modules keep their `time`.
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _: None))
    with HubServer() as server:
        yield server


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_upload_and_download_at_each_commit(hub, api, folder, tmp_path, kind):
    where = {"repo_id": REPO, "repo_type": kind}
    assert api.create_repo(**where) == api.create_repo(**where, exist_ok=True)
    first = api.upload_folder(**where, folder_path=folder).oid
    assert api.upload_folder(**where, folder_path=folder).oid == first, "nothing changed"
    (folder / "README.md").unlink()
    (folder / "model.safetensors").write_bytes(WEIGHTS[::-1])
    (folder / "data").mkdir()
    (folder / "data" / "a b.txt").write_text("text")
    second = api.upload_folder(**where, folder_path=folder, delete_patterns="*.md", parent_commit=first[:7]).oid
    with pytest.raises(errors.HfHubHTTPError, match="412"):
        api.delete_file("model.safetensors", **where, parent_commit=first)
    api.create_tag(**where, tag="v1", revision=first)
    api.create_branch(**where, branch="dev/x", revision=first)

    get = {**where, "endpoint": hub.endpoint, "cache_dir": tmp_path / "cache"}
    for revision in (first, "v1", "dev/x"):
        with open(hf_hub_download(**get, filename="model.safetensors", revision=revision), "rb") as file:
            assert file.read() == WEIGHTS
    snapshot = tmp_path / "cache" / f"{kind}s--user--tiny" / "snapshots" / second
    assert snapshot_download(**get) == str(snapshot)
    assert (snapshot / "model.safetensors").read_bytes() == WEIGHTS[::-1]
    assert (snapshot / "data" / "a b.txt").read_text() == "text"

    info = api.repo_info(**where, files_metadata=True)
    assert info.sha == second
    lfs = {sibling.rfilename: sibling.lfs is not None for sibling in info.siblings}
    assert lfs == {".gitattributes": False, "data/a b.txt": False, "model.safetensors": True}
    assert api.verify_repo_checksums(**where, local_dir=folder).mismatches == []
    refs = api.list_repo_refs(**where)
    heads = {ref.name: ref.target_commit for ref in refs.branches + refs.tags}
    assert heads == {"main": second, "dev/x": first, "v1": first}
    assert not any(hub.token in request.path for request in hub.requests)
    assert not any(request.has_valid_token for request in hub.requests if request.method == "PUT")


def test_refusals(hub, api, folder, tmp_path):
    hub.create_repo(REPO)
    hub.create_repo("user/secret", private=True)
    get = {"filename": "x", "endpoint": hub.endpoint, "cache_dir": tmp_path / "cache"}
    stranger = HfApi(endpoint=hub.endpoint, token=False)
    with pytest.raises(errors.HfHubHTTPError, match="Invalid credentials"):
        api.create_repo("user/other", token="hf_wrong")
    with pytest.raises(errors.HfHubHTTPError, match="401"):
        stranger.create_repo("user/other")
    with pytest.raises(errors.RepositoryNotFoundError):
        stranger.upload_folder(repo_id=REPO, folder_path=folder)
    for name, token, status in (("user/no", hub.token, 404), ("user/no", False, 401), ("user/secret", False, 401)):
        with pytest.raises(errors.RepositoryNotFoundError) as error:
            hf_hub_download(name, token=token, **get)
        assert error.value.response.status_code == status
    with pytest.raises(errors.RevisionNotFoundError):
        hf_hub_download(REPO, revision="v9", **get)
    with pytest.raises(errors.RemoteEntryNotFoundError):
        hf_hub_download("user/secret", token=hub.token, **get)
    with pytest.raises(errors.HfHubHTTPError, match=r"416.*Content-Range: bytes \*/50"):
        url = f"{hub.endpoint}/{REPO}/resolve/main/.gitattributes"
        _http.hf_raise_for_status(_http.get_session().get(url, headers={"Range": "bytes=99-"}))
    (folder / "README.md").write_text("---\n- not: [a mapping\n---\n")
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.upload_folder(repo_id=REPO, folder_path=folder)


def test_faults_leave_the_branch_alone(hub, api, folder, tmp_path, monkeypatch):
    hub.create_repo(REPO)
    before = hub.commit(REPO, {"README.md": b"old"}).sha
    push = {"repo_id": REPO, "folder_path": folder}
    hub.fail("PUT", "/lfs-storage/", "drop", times=None)
    with pytest.raises(RuntimeError, match=r"model\.safetensors"):
        api.upload_folder(**push)
    hub.heal()
    for fault, expected in (("drop", errors.HTTPError), (500, errors.HfHubHTTPError)):
        hub.fail("POST", "/commit/main", fault)
        with pytest.raises(expected):
            api.upload_folder(**push)
    assert api.repo_info(REPO).sha == before
    assert hub.files(REPO)["README.md"] == b"old"

    hub.fail("PUT", "/lfs-storage/", 503)  # the client retries an upload
    (folder / "model.safetensors").write_bytes(WEIGHTS[::-1])
    after = api.upload_folder(**push).oid
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.fail("GET", "/resolve/", "drop")  # and resumes a download where it broke off
    path = hf_hub_download(REPO, "model.safetensors", endpoint=hub.endpoint, cache_dir=tmp_path, revision=after)
    with open(path, "rb") as file:
        assert file.read() == WEIGHTS[::-1] == hub.files(REPO, after)["model.safetensors"]


def test_nothing_answers_once_the_server_is_closed(api, hub):
    hub.create_repo(REPO)
    api.repo_info(REPO)  # leaves a connection open
    asked = len(hub.requests)
    hub.__exit__()
    with pytest.raises(errors.HTTPError):
        api.repo_info(REPO)
    assert len(hub.requests) == asked
