"""The canvas page at `/` and its files: read once, served to everybody, with a strict policy.

A path is looked up among the files that were found at the start, so that none leads elsewhere.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.errors import NotFound

INDEX: Final = "index.html"
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Kept, but asked about each time: a page of one version never runs a module of another.
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True)
class _File:
    """A file of the page, as it is and compressed."""

    content: bytes
    compressed: bytes
    media_type: str
    tag: str


def page_router() -> APIRouter:
    """Return the routes of the page, `/` and `/web/...`: open, for it asks for the key itself."""
    files = _read_files(resources.files("service.front").joinpath("web"))
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return _answer(files[INDEX], request)

    @router.api_route("/web/{path:path}", methods=["GET", "HEAD"])
    async def file(path: str, request: Request) -> Response:
        if path not in files:
            raise NotFound("there is no such file of the page")
        return _answer(files[path], request)

    return router


def _read_files(folder: Traversable, prefix: str = "") -> Mapping[str, _File]:
    files: dict[str, _File] = {}
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            files |= _read_files(entry, f"{name}/")
        elif (media_type := _MEDIA_TYPES.get(PurePosixPath(name).suffix)) is not None:
            files[name] = _to_file(entry.read_bytes(), media_type)
    return files


def _to_file(content: bytes, media_type: str) -> _File:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _File(content, gzip.compress(content, mtime=0), media_type, tag)


def _answer(file: _File, request: Request) -> Response:
    headers = {**_HEADERS, "ETag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.compressed, media_type=file.media_type, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
