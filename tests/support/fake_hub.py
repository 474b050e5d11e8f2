"""A hub of models by hand: the few endpoints that `huggingface_hub` asks of the real one.

Give its `url` as HF_ENDPOINT. Large files are announced by their sha256 and small ones by git's
digest, as there; a download goes on from where it was cut (`Range`).
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from typing_extensions import override


@dataclass
class Repository:
    """Files at one commit, under names of revisions, and what is wrong with them."""

    files: Mapping[str, bytes]
    commit: str
    revisions: tuple[str, ...] = ("main",)
    licence: str | None = None
    is_gated: bool = False
    lost: set[str] = field(default_factory=set)  # listed, and not there
    cut_after: dict[str, int] = field(default_factory=dict)  # bytes; once for each file
    garbled: dict[str, int] = field(default_factory=dict)  # how many answers will be other bytes

    def holds(self, revision: str) -> bool:
        return revision in {self.commit, *self.revisions}


class FakeHub:
    """Repositories by their id, and what was asked of them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, Repository] = {}
        self.downloads: list[tuple[str, str, int]] = []  # id, path, first byte

    def add(self, hub_id: str, files: Path | Mapping[str, bytes], commit: str = "") -> Repository:
        """Publish a folder, or files by name."""
        if isinstance(files, Path):
            paths = [path for path in files.rglob("*") if path.is_file()]
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in paths}
        commit = commit or hashlib.sha1(hub_id.encode()).hexdigest()  # noqa: S324 - as git's
        self.repositories[hub_id] = Repository(dict(files), commit)
        return self.repositories[hub_id]

    def downloaded(self, hub_id: str) -> set[str]:
        return {path for found, path, _ in self.downloads if found == hub_id}


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin"))


def etag(path: str, content: bytes) -> str:
    if is_large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()  # noqa: S324


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""

    def _answer(self) -> None:
        parts = unquote(self.path.partition("?")[0]).strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        org, name, verb, revision, *rest = [*parts[2 if is_api else 0 :], "", "", ""][:64]
        hub_id, path = f"{org}/{name}", "/".join(part for part in rest if part)
        repository = self.hub.repositories.get(hub_id)
        if repository is None:
            return self._refuse(404, "RepoNotFound")
        if not repository.holds(revision):
            return self._refuse(404, "RevisionNotFound")
        if is_api:
            tell = self._tree if verb == "tree" else self._info
            return self._json(tell(hub_id, repository))
        if repository.is_gated:
            return self._refuse(403, "GatedRepo")
        if path not in repository.files or path in repository.lost:
            return self._refuse(404, "EntryNotFound")
        return self._file(hub_id, repository, path)

    def _info(self, hub_id: str, repository: Repository) -> object:
        card = {"license": repository.licence} if repository.licence else {}
        return {
            "id": hub_id,
            "sha": repository.commit,
            "siblings": [{"rfilename": path} for path in repository.files],
            "cardData": card,
        }

    def _tree(self, _: str, repository: Repository) -> object:
        return [_entry(path, content) for path, content in repository.files.items()]

    def _file(self, hub_id: str, repository: Repository, path: str) -> None:
        content = repository.files[path]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("ETag", f'"{etag(path, content)}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        self.hub.downloads.append((hub_id, path, start))
        self._send(repository, path, content[start:])

    def _send(self, repository: Repository, path: str, content: bytes) -> None:
        if repository.garbled.get(path, 0) > 0:
            repository.garbled[path] -= 1
            content = bytes(len(content))
        cut = repository.cut_after.pop(path, None)
        self.wfile.write(content[:cut])
        if cut is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(path: str, content: bytes) -> dict[str, object]:
    digest = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()  # noqa: S324
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": digest}
    if is_large(path):
        oid = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
    return entry


@contextmanager
def serving_hub() -> Iterator[FakeHub]:
    """Serve a hub on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = FakeHub(f"http://127.0.0.1:{server.server_address[1]}")
    _Handler.hub = hub
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
