"""A Hugging Face hub of a few repositories on loopback: what its own client library asks for, and no more.

It stands in for the hub where that cannot be reached. tests/conformance/test_hub.py runs against the real one as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
_API = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+?)(?:/(?P<verb>revision|tree)/(?P<revision>[^/]+))?\Z")
_FILE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)\Z")
_CHUNK = 64 * 1024


@dataclass
class FakeHub:
    """What is there, what was asked, and how it behaves.

    Clear `flows` to stop all weights half way, and `answers` to leave all that is asked without an answer.
    """

    address: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    claims: dict[str, int] = field(default_factory=dict)  # by file: how many bytes its listing says it has
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    is_broken: bool = False  # every answer is an error of the server
    flows: threading.Event = field(default_factory=threading.Event)
    answers: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, directory: Path) -> None:
        """Publishes the files of a directory."""
        self.repositories[name] = {
            str(each.relative_to(directory)): each.read_bytes() for each in directory.rglob("*") if each.is_file()
        }

    def fetched(self, name: str) -> list[str]:
        """Returns which files of a repository were asked for in whole."""
        start = f"GET /{name}/resolve/"
        return [each.removeprefix(start).partition("/")[2] for each in self.asked if each.startswith(start)]


@contextlib.contextmanager
def serving_hub() -> Iterator[FakeHub]:
    """Serves a hub for the block."""
    hub = FakeHub()
    hub.flows.set()
    hub.answers.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *arguments: _Handler(hub, *arguments))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asked has ended
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.05))
    thread.start()
    try:
        yield hub
    finally:
        hub.flows.set()
        hub.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: FakeHub, *arguments: Any) -> None:
        self._hub = hub
        super().__init__(*arguments)

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        is_part = "Range" in self.headers
        self._hub.asked.append(f"{'PART' if is_part else self.command} {path}")
        self._hub.answers.wait()
        found = _API.match(path) or _FILE.match(path)
        if self._hub.is_broken:
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "")
        files = None if found is None else self._hub.repositories.get(found["name"])
        if found is None or files is None:
            return self._refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound")
        if found["name"] in self._hub.gated and "Authorization" not in self.headers:
            return self._refuse(HTTPStatus.FORBIDDEN, "GatedRepo")
        if found["revision"] not in (None, "main", COMMIT):
            return self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        if found.re is _API:
            sizes = {path: self._hub.claims.get(path, len(content)) for path, content in files.items()}
            return self._say(_tree(sizes) if found["verb"] == "tree" else _info(found["name"], sizes))
        if found["path"] not in files:
            return self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")
        return self._send_file(files[found["path"]])

    def _say(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: HTTPStatus, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_file(self, content: bytes) -> None:
        first, behind = 0, len(content)
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is not None:
            first = int(wanted[1])
            behind = min(behind, int(wanted[2]) + 1) if wanted[2] else behind
        self.send_response(HTTPStatus.OK if wanted is None else HTTPStatus.PARTIAL_CONTENT)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(behind - first))
        if wanted is not None:
            self.send_header("Content-Range", f"bytes {first}-{behind - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        for at in range(first, behind, _CHUNK):
            if wanted is None and at > len(content) // 2 and len(content) > _CHUNK:
                self._hub.flows.wait()
            with contextlib.suppress(ConnectionError):  # who asked has ended
                self.wfile.write(content[at : min(behind, at + _CHUNK)])
                self.wfile.flush()


def _info(name: str, sizes: dict[str, int]) -> dict[str, Any]:
    siblings = [{"rfilename": path, "size": size, "blobId": _oid(path)} for path, size in sizes.items()]
    return {
        "id": name,
        "modelId": name,
        "sha": COMMIT,
        "siblings": siblings,
        "private": False,
        "tags": [],
        "gated": False,
    }


def _tree(sizes: dict[str, int]) -> list[dict[str, Any]]:
    return [{"type": "file", "path": path, "size": size, "oid": _oid(path)} for path, size in sizes.items()]


def _oid(path: str) -> str:
    return hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()
