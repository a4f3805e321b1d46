"""A stand-in for the Hub on this machine: as much of its HTTP interface as pushing and loading a model needs."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_thisIsNoTokenButLooksLikeOne"


@dataclass
class Commit:
    """One commit: its message and all files after it."""

    message: str
    files: dict[str, bytes]

    @property
    def oid(self) -> str:
        listing = json.dumps([self.message, {path: _sha(content) for path, content in self.files.items()}])
        return hashlib.sha1(listing.encode()).hexdigest()


@dataclass
class Repository:
    """A repository with its branches, each a list of commits."""

    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": [Commit("initial commit", {})]})

    def find(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        commits = [commit for branch in self.branches.values() for commit in branch]
        return next((commit for commit in commits if commit.oid == revision), None)


@dataclass
class Hub:
    """What the stand-in holds and has been asked.

    Args:
        url: Where it listens.
        repositories: `owner/name`, or `spaces/owner/name`, to the repository.
        requests: Method and path of every request.
        refuse: Part of a path to the status that is answered in place of anything else.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        commit = self.repositories[repo].find(revision)
        assert commit is not None
        return commit.files


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve an empty Hub on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing: tests look at what is said."""

    def do_GET(self) -> None:
        self.path_only = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {self.path_only}")
        refused = next((status for part, status in self.hub.refuse.items() if part in self.path_only), None)
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length)
        if refused is not None:
            # A server that repeats a token is the worst case.
            self.answer(refused, {"error": f"refused: {self.headers.get('Authorization')}"})
        elif self.command not in ("GET", "HEAD") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            stored = self.command == "PUT" and self.path_only.startswith("/storage/")
            if not stored:
                self.answer(401, {"error": "Invalid username or password."})
                return
            self.route()
        else:
            self.route()

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self, status: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def route(self) -> None:
        parts = self.path_only.strip("/").split("/")
        if self.path_only == "/api/repos/create":
            self.create(json.loads(self.body))
        elif self.path_only == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif parts[0] == "storage":
            assert _sha(self.body) == parts[1]
            self.hub.large[parts[1]] = self.body
            self.answer(200, {})
        elif self.path_only.endswith(".git/info/lfs/objects/batch"):
            self.batch(json.loads(self.body))
        elif parts[0] == "api" and parts[1] in ("models", "spaces"):
            prefix = "" if parts[1] == "models" else "spaces/"
            self.of_repository(prefix + "/".join(parts[2:4]), parts[4:])
        elif "resolve" in parts:
            at = parts.index("resolve")
            self.resolve("/".join(parts[:at]), parts[at + 1], "/".join(parts[at + 2 :]))
        else:
            self.answer(404, {"error": "Not found"})

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization'] or 'ana'}/{wanted['name']}"
        key = ("spaces/" if wanted.get("type") == "space" else "") + name
        exists = key in self.hub.repositories
        if not exists:
            self.hub.repositories[key] = Repository(wanted.get("visibility") == "private")
        self.answer(409 if exists else 200, {"url": f"{self.hub.url}/{key}", "name": name})

    def batch(self, wanted: dict[str, Any]) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.url}/storage/{one['oid']}"}}}
            for one in wanted["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def of_repository(self, name: str, verb: list[str]) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        what, revision = verb[0] if verb else "revision", verb[1] if len(verb) > 1 else "main"
        commit = repository.find(revision)
        if what == "branch":
            known = revision in repository.branches
            repository.branches.setdefault(revision, list(repository.branches["main"]))
            self.answer(409 if known else 200, {})
        elif commit is None:
            self.answer(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
        elif what == "preupload":
            modes = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith((".safetensors", ".png")) else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(self.body)["files"]
            ]
            self.answer(200, {"files": modes})
        elif what == "commit":
            made = self.commit(commit)
            repository.branches[revision].append(made)
            url = f"{self.hub.url}/{name}/commit/{made.oid}"
            self.answer(200, {"commitUrl": url, "commitOid": made.oid, "success": True})
        elif what == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": _sha(content)[:40]}
                for path, content in commit.files.items()
                if path.startswith("/".join(verb[2:]))
            ]
            found = bool(entries) or len(verb) == 2
            self.answer(200 if found else 404, entries, None if found else {"X-Error-Code": "EntryNotFound"})
        else:
            siblings = [{"rfilename": path} for path in commit.files]
            self.answer(200, {"id": name, "modelId": name, "sha": commit.oid, "siblings": siblings, "tags": []})

    def commit(self, before: Commit) -> Commit:
        message, files = "", dict(before.files)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert entry["key"] == "lfsFile"
                files[value["path"]] = self.hub.large[value["oid"]]
        return Commit(message, files)

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.hub.repositories.get(name)
        commit = None if repository is None else repository.find(revision)
        if commit is None:
            self.answer(404, {"error": "Not found"}, {"X-Error-Code": "RepoNotFound"})
        elif path not in commit.files:
            self.answer(404, {"error": "Not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit.oid})
        else:
            content = commit.files[path]
            self.answer(200, content, {"X-Repo-Commit": commit.oid, "ETag": f'"{_sha(content)}"'})


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
