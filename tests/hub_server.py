"""A Hugging Face Hub on localhost: the real `huggingface_hub` client uploads to it and downloads from it.

The server speaks the part of the Hub's HTTP API behind creating a repo, committing (with LFS), listing and
downloading, and can be told to fail. Xet is not served: clients need `HF_HUB_DISABLE_XET=1`. Neither are pull
requests, and LFS files come from the server itself, where the Hub redirects to a CDN. Listings hold no folders.
"""

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.local_server import LocalServer


DATE = "2024-01-01T00:00:00.000Z"
GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


def is_lfs_by_default(path: str, size: int, sample: bytes) -> bool:
    """Whether the Hub would want this file in LFS: weights, anything over 10 MB, and binary files."""
    return fnmatch(path, "*.safetensors") or size > 10 * 1024**2 or b"\0" in sample


def git_blob_id(content: bytes) -> str:
    """Id that git gives to a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def card_metadata(card: str) -> dict[str, Any]:
    """Metadata in the front matter of a model or dataset card; raises `ValueError` or `YAMLError` if malformed."""
    block = re.match(r"\s*---\r?\n(.*?)(?:\r?\n)?---(?:\r?\n|$)", card, flags=re.DOTALL)
    metadata = (yaml.safe_load(block[1]) or {}) if block else {}
    if not isinstance(metadata, dict):
        raise ValueError("metadata should be a mapping")
    return metadata


class Reply(NamedTuple):
    """What is sent back for a request."""

    status: int
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


class HubError(Exception):
    """A refusal, with the headers and the JSON body from which the client chooses its exception."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: Any = (), **extra: str):
        super().__init__(message)
        headers = {**dict(headers), "X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.reply = Reply(status, json.dumps({"error": message, **extra}).encode(), headers)


class Request(NamedTuple):
    """A line of the server's log; the path is as sent, with its query."""

    method: str
    path: str
    has_valid_token: bool


@dataclass
class Fault:
    """A failure to inject into the next requests that match; `times` is None for all of them."""

    method: str
    path: re.Pattern[str]
    status: int | Literal["drop"]
    times: int | None


@dataclass(frozen=True)
class Commit:
    """An immutable snapshot of a repo."""

    sha: str
    title: str
    message: str
    files: Mapping[str, bytes]
    lfs: frozenset[str]

    def entry(self, path: str) -> dict[str, Any]:
        """Describes a file as in the Hub's listings."""
        content = self.files[path]
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_blob_id(content)}
        if path in self.lfs:
            sha256 = hashlib.sha256(content).hexdigest()
            pointer = LFS_POINTER.format(sha256, len(content)).encode()
            entry["oid"] = git_blob_id(pointer)
            entry["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(content), "pointerSize": len(pointer)}
        return entry


@dataclass
class Repo:
    """A repo: branches as lists of commits, tags, and the LFS objects uploaded so far by their sha256."""

    kind: str
    name: str
    private: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Path of the repo's page on the site."""
        return self.name if self.kind == "model" else f"{self.kind}s/{self.name}"

    def find(self, revision: str) -> Commit:
        """Finds a commit by branch, tag, or (possibly shortened) sha."""
        if revision in self.branches:
            return self.branches[revision][-1]
        if revision in self.tags:
            return self.tags[revision]
        for commit in (commit for branch in self.branches.values() for commit in branch):
            if len(revision) >= 7 and commit.sha.startswith(revision):
                return commit
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def add(self, branch: str, files: Mapping[str, bytes], lfs: set[str], title: str, message: str = "") -> Commit:
        """Appends a commit that holds exactly these files to a branch."""
        history = self.branches.setdefault(branch, [])
        parent = history[-1].sha if history else ""
        parts = [self.path, parent, title, message, *(f"{path} {git_blob_id(files[path])}" for path in sorted(files))]
        sha = hashlib.sha1("\n".join(parts).encode()).hexdigest()
        history.append(Commit(sha, title, message, MappingProxyType(dict(files)), frozenset(lfs & set(files))))
        return history[-1]


class HubServer(LocalServer):
    """The Hub, running as long as the context lasts; its state stays readable afterwards.

    Args:
        user: Account that the token belongs to, and namespace of repos created without one.
        is_lfs: Rule that takes a file's path, its size and its first bytes, and tells whether it goes to LFS.

    Attributes:
        endpoint: URL to give to the client.
        token: The one token that the server accepts.
        requests: Every request received, in order.
        repos: Repos by kind ("model", "dataset" or "space") and name.
    """

    def __init__(self, user: str = "user", is_lfs: Callable[[str, int, bytes], bool] = is_lfs_by_default):
        self.user = user
        self.is_lfs = is_lfs
        self.token = "hf_onlyForTheTestServer"
        self.requests: list[Request] = []
        self.repos: dict[tuple[str, str], Repo] = {}
        self.uploads: dict[str, tuple[Repo, str, int]] = {}
        self.faults: list[Fault] = []
        super().__init__(type("Handler", (_Handler,), {"hub": self}), threading.RLock())
        self.endpoint = self.address

    def fail(self, method: str, path_regex: str, status: int | Literal["drop"] = 500, times: int | None = 1) -> None:
        """Makes matching requests fail, the earliest fault first, without any effect on the store.

        Args:
            method: HTTP method of the requests.
            path_regex: Pattern to search for in the path, which is still percent-encoded and has its query.
            status: Status to answer with. "drop" closes the connection instead: in the middle of the body of an
                upload or of a download, and without an answer where there is no body.
            times: How many requests fail; None for every one until `heal`.
        """
        with self.lock:
            self.faults.append(Fault(method, re.compile(path_regex), status, times))

    def heal(self) -> None:
        """Forgets the faults that are left."""
        with self.lock:
            self.faults.clear()

    def create_repo(self, name: str, kind: str = "model", private: bool = False) -> Repo:
        """Creates a repo, with the first commit that the Hub gives it."""
        with self.lock:
            repo = self.repos[kind, name] = Repo(kind, name, private)
            repo.add("main", {".gitattributes": GITATTRIBUTES}, set(), "initial commit")
            return repo

    def commit(self, name: str, files: Mapping[str, bytes], branch: str = "main", kind: str = "model") -> Commit:
        """Adds files to a repo, past the HTTP API."""
        with self.lock:
            repo = self.repos[kind, name]
            head = repo.find(branch)
            lfs = {path for path, content in files.items() if self.is_lfs(path, len(content), content[:512])}
            return repo.add(branch, {**head.files, **files}, (head.lfs - set(files)) | lfs, "Add files")

    def files(self, name: str, revision: str = "main", kind: str = "model") -> Mapping[str, bytes]:
        """Content of a repo at a branch, tag or sha."""
        return self.repos[kind, name].find(revision).files

    def take_fault(self, method: str, path: str) -> int | Literal["drop"] | None:
        """Uses up the first fault that matches a request, if any."""
        with self.lock:
            for fault in self.faults:
                if fault.method == method and fault.path.search(path) and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault.status
        return None


# Repos of the early Hub have no namespace. The revision in a path is one segment: the client encodes its slashes.
_NAME = r"(?P<repo>[^/]+(?:/[^/]+)??)"
_API = rf"/api/(?P<kind>model|dataset|space)s/{_NAME}"
_SITE = rf"/(?:(?P<kind>dataset|space)s/)?{_NAME}"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", r"/api/repos/create", "create_repo"),
    ("GET", rf"{_API}/tree/{_REVISION}(?:/(?P<path>.+))?", "tree"),
    ("GET", rf"{_API}/refs", "refs"),
    ("POST", rf"{_API}/branch/(?P<branch>[^/]+)", "create_branch"),
    ("POST", rf"{_API}/tag/{_REVISION}", "create_tag"),
    ("POST", rf"{_API}/preupload/{_REVISION}", "preupload"),
    ("POST", rf"{_API}/commit/{_REVISION}", "commit"),
    ("GET", rf"{_API}(?:/revision/{_REVISION})?", "info"),
    ("POST", rf"{_SITE}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("POST", rf"{_SITE}\.git/info/lfs/objects/verify", "lfs_verify"),
    ("PUT", r"/lfs-storage/(?P<ticket>\w+)", "lfs_upload"),
    ("GET HEAD", rf"{_SITE}/resolve/{_REVISION}/(?P<path>.+)", "resolve"),
]


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection; the methods without an underscore are the routes."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes, and must not wait for each other

    def setup(self) -> None:
        super().setup()
        with self.hub.lock:
            self.hub.connections.add(self.connection)

    def finish(self) -> None:
        with self.hub.lock:
            self.hub.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Keeps standard error for the tests."""

    def _answer(self) -> None:
        authorization = self.headers.get("Authorization")
        self.authorized = authorization == f"Bearer {self.hub.token}"
        self.hub.requests.append(Request(self.command, self.path, self.authorized))
        fault = self.hub.take_fault(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        if fault == "drop" and (length or self.command != "GET"):
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        self.body = self.rfile.read(length)
        if len(self.body) < length:  # the client left
            self.close_connection = True
            return
        try:
            if isinstance(fault, int):
                raise HubError(fault, "Injected failure")
            if authorization is not None and not self.authorized:
                raise HubError(401, "Invalid credentials in Authorization header")
            with self.hub.lock:
                reply = self._route()
        except HubError as error:
            reply = error.reply
        self._send(reply, cut=fault == "drop")

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _route(self) -> Reply:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        for methods, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, url.path)
            if match and self.command in methods.split():
                values: dict[str, Any] = {k: unquote(v) for k, v in match.groupdict().items() if v is not None}
                kind = values.pop("kind", "model")
                if "repo" in values:
                    values["repo"] = self._repo(kind, values["repo"])
                answer = getattr(self, action)(**values)
                if isinstance(answer, Reply):
                    return answer
                return Reply(200, json.dumps(answer, default=str).encode())
        raise HubError(404, f"No such route: {self.command} {url.path}")

    def _send(self, reply: Reply, cut: bool) -> None:
        self.close_connection = self.close_connection or cut
        if cut and not reply.body:
            return
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[: len(reply.body) // 2] if cut else reply.body)

    def _repo(self, kind: str, name: str) -> Repo:
        repo = self.hub.repos.get((kind, name))
        if self.authorized:
            if repo is None:
                raise HubError(404, "Repository not found", "RepoNotFound")
        # The Hub tells a stranger neither whether a repo exists nor why a change is refused. The client knows this
        # bare 401 by the repo in a https URL; on plain http it needs the code to raise the same exception.
        elif repo is None or repo.private or self.command == "POST":
            raise HubError(401, "Invalid username or password.", "RepoNotFound")
        return repo

    def _require_token(self) -> None:
        if not self.authorized:
            raise HubError(401, "Invalid username or password.")

    def whoami(self) -> dict[str, Any]:
        self._require_token()
        token = {"displayName": "tests", "role": "write", "createdAt": DATE}
        auth = {"type": "access_token", "accessToken": token}
        return {"type": "user", "id": "0" * 24, "name": self.hub.user, "orgs": [], "auth": auth}

    def validate_yaml(self) -> Reply | dict[str, Any]:
        try:
            metadata = card_metadata(json.loads(self.body)["content"])
        except (ValueError, yaml.YAMLError) as error:
            return Reply(400, json.dumps({"errors": [{"message": str(error)}], "warnings": []}).encode())
        missing = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
        return {"errors": [], "warnings": missing}

    def create_repo(self) -> dict[str, str]:
        self._require_token()
        asked = json.loads(self.body)
        kind, name = asked.get("type") or "model", f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        url = f"{self.hub.endpoint}/{Repo(kind, name).path}"
        if (kind, name) in self.hub.repos:
            raise HubError(409, f"You already created this {kind} repo: {name}", url=url)
        self.hub.create_repo(name, kind, private=asked.get("visibility") == "private" or asked.get("private") is True)
        return {"url": url, "name": name}

    def info(self, repo: Repo, revision: str = "main") -> dict[str, Any]:
        commit = repo.find(revision)
        entries = [commit.entry(path) for path in sorted(commit.files)]
        siblings: list[dict[str, Any]] = [{"rfilename": entry["path"]} for entry in entries]
        if "blobs" in self.query:
            siblings = [{**entry, "rfilename": entry["path"], "blobId": entry["oid"]} for entry in entries]
        try:
            card = card_metadata(commit.files.get("README.md", b"").decode())
        except (ValueError, yaml.YAMLError):
            card = {}
        from_card = {key: card[key] for key in ("pipeline_tag", "library_name", "tags") if key in card}
        about = {"id": repo.name, "sha": commit.sha, "private": repo.private, "lastModified": DATE, "createdAt": DATE}
        return {**about, **from_card, "siblings": siblings, "cardData": card}

    def tree(self, repo: Repo, revision: str, path: str = "") -> list[dict[str, Any]]:
        commit, prefix = repo.find(revision), f"{path}/" if path else ""
        inside = [name for name in sorted(commit.files) if name.startswith(prefix)]
        if path and not inside:
            raise HubError(404, f"{path} does not exist on {revision!r}", "EntryNotFound")
        if self.query.get("recursive", ["false"])[0].lower() != "true":
            inside = [name for name in inside if "/" not in name[len(prefix) :]]
        return [commit.entry(name) for name in inside]

    def refs(self, repo: Repo) -> dict[str, Any]:
        heads = [(name, f"refs/heads/{name}", history[-1]) for name, history in repo.branches.items()]
        tags = [(name, f"refs/tags/{name}", commit) for name, commit in repo.tags.items()]
        listed = [[{"name": n, "ref": ref, "targetCommit": c.sha} for n, ref, c in refs] for refs in (heads, tags)]
        return {"branches": listed[0], "tags": listed[1], "converts": [], "pullRequests": []}

    def create_branch(self, repo: Repo, branch: str) -> dict[str, str]:
        if branch in repo.branches:
            raise HubError(409, f"Reference already exists: refs/heads/{branch}")
        start = repo.find(json.loads(self.body or b"{}").get("startingPoint") or "main")
        history = next(h for h in repo.branches.values() if start in h)
        repo.branches[branch] = history[: history.index(start) + 1]
        return {}

    def create_tag(self, repo: Repo, revision: str) -> dict[str, str]:
        tag = json.loads(self.body)["tag"]
        if tag in repo.tags:
            raise HubError(409, f"Tag already exists: refs/tags/{tag}")
        repo.tags[tag] = repo.find(revision)
        return {}

    def preupload(self, repo: Repo, revision: str) -> dict[str, Any]:
        head, files = repo.find(revision), []
        for asked in json.loads(self.body)["files"]:
            path, sample = asked["path"], base64.b64decode(asked["sample"])
            mode = "lfs" if self.hub.is_lfs(path, asked["size"], sample) else "regular"
            file = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            if path in head.files:  # by this id the client leaves out files that have not changed
                entry = head.entry(path)
                file["oid"] = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
            files.append(file)
        return {"files": files}

    def commit(self, repo: Repo, revision: str) -> dict[str, Any]:
        if "create_pr" in self.query:
            raise HubError(501, "Pull requests are not served here")
        if revision not in repo.branches:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head = repo.find(revision)
        header, *operations = (json.loads(line) for line in self.body.splitlines())
        if not head.sha.startswith(header["value"].get("parentCommit", "")):  # may be shortened
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        # The branch moves only once every operation has gone through.
        files, lfs = dict(head.files), set(head.lfs)
        for key, value in ((operation["key"], operation["value"]) for operation in operations):
            path = value["path"]
            if key == "file":
                files[path] = base64.b64decode(value["content"])
                lfs.discard(path)
            elif key == "lfsFile":
                content = repo.objects.get(value["oid"])
                if content is None or value.get("size", len(content)) != len(content):
                    raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path}")
                files[path] = content
                lfs.add(path)
            elif key in ("deletedFile", "deletedFolder"):
                inside = f"{path.rstrip('/')}/"
                gone = [p for p in files if (p == path if key == "deletedFile" else p.startswith(inside))]
                if not gone:
                    raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                for name in gone:
                    del files[name]
            else:
                raise HubError(400, f"Unknown operation: {key}")
        commit = repo.add(revision, files, lfs, header["value"]["summary"], header["value"].get("description", ""))
        url = f"{self.hub.endpoint}/{repo.path}/commit/{commit.sha}"
        return {"success": True, "commitOid": commit.sha, "commitUrl": url, "hookOutput": ""}

    def lfs_batch(self, repo: Repo) -> dict[str, Any]:
        objects = []
        for asked in json.loads(self.body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in repo.objects:
                # As with signed URLs, the upload itself carries no token: the address is the permission.
                ticket = hashlib.sha256(f"{repo.path}/{asked['oid']}".encode()).hexdigest()
                self.hub.uploads[ticket] = (repo, asked["oid"], asked["size"])
                verify = f"{self.hub.endpoint}/{repo.path}.git/info/lfs/objects/verify"
                upload = f"{self.hub.endpoint}/lfs-storage/{ticket}"
                answer["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    def lfs_upload(self, ticket: str) -> dict[str, str]:
        if ticket not in self.hub.uploads:
            raise HubError(403, "Invalid signature")
        repo, oid, size = self.hub.uploads[ticket]
        if len(self.body) != size or hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "The content does not match its sha256 and size")
        repo.objects[oid] = self.body
        return {}

    def lfs_verify(self, repo: Repo) -> dict[str, str]:
        asked = json.loads(self.body)
        if len(repo.objects.get(asked["oid"], b"")) != asked["size"]:
            raise HubError(404, f"Object {asked['oid']} was not uploaded")
        return {}

    def resolve(self, repo: Repo, revision: str, path: str) -> Reply:
        commit = repo.find(revision)
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", headers={"X-Repo-Commit": commit.sha})
        content, entry = commit.files[path], commit.entry(path)
        headers["ETag"] = f'"{entry["oid"]}"'
        if "lfs" in entry:
            headers |= {"X-Linked-Etag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(len(content))}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return Reply(200, content, headers)
        start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if start >= len(content):
            raise HubError(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return Reply(206, content[start : end + 1], headers)


def hub_environment(hub: HubServer, home: Path, token: str | None = None) -> dict[str, str]:
    """The environment of a process whose only Hub is this one."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": hub.token if token is None else token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
