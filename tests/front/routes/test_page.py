"""The page at `/` and its files: open to everybody, strict in what they may load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.api import Api

WEB = Path(__file__).parents[3] / "service" / "front" / "web"
FILES = [path for path in WEB.rglob("*") if path.is_file()]
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Visitor:
    """Somebody without a key."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)


@pytest.fixture
def visitor(api: Api) -> Iterator[Visitor]:
    visitor = Visitor(api.url)
    yield visitor
    visitor.http.close()


def test_the_page_needs_no_key(visitor: Visitor) -> None:
    """`/` is the page, for it has to ask for the key itself."""
    answer = visitor.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == MEDIA_TYPES[".html"]
    assert "<title>Instant refine</title>" in answer.text
    assert visitor.get("/v1/styles").status_code == 401


def test_a_file_is_served_as_what_it_is(visitor: Visitor) -> None:
    """Each file arrives unchanged, with its type and without sniffing."""
    for path in FILES:
        answer = visitor.get(f"/web/{path.relative_to(WEB)}")
        assert answer.content == path.read_bytes()
        assert answer.headers["content-type"] == MEDIA_TYPES[path.suffix]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_policy_allows_its_own_origin_alone(visitor: Visitor) -> None:
    """Nothing inline, nothing from elsewhere, in no frame."""
    policy = visitor.get("/").headers["content-security-policy"]
    directives = dict(item.split(" ", 1) for item in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == "'self'"
    assert directives["connect-src"] == "'self'"
    assert directives["img-src"] == "'self' data: blob:"
    assert directives["frame-ancestors"] == "'none'"


def test_a_known_file_is_not_sent_again(visitor: Visitor) -> None:
    """A browser asks each time, and gets 304 while its copy is the present one."""
    first = visitor.get("/web/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = visitor.get("/web/app.js", **{"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert not again.content
    assert again.headers["etag"] == first.headers["etag"]
    assert visitor.get("/web/app.js", **{"If-None-Match": '"another"'}).status_code == 200


def test_who_cannot_unpack_gets_it_plain(visitor: Visitor) -> None:
    """Compression is for those who say that they take it."""
    assert visitor.get("/web/app.js").headers["content-encoding"] == "gzip"
    plain = visitor.get("/web/app.js", **{"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == (WEB / "app.js").read_bytes()


@pytest.mark.parametrize(
    "path",
    ["/web/", "/web/none.js", "/web/..%2fpage.py", "/web/%2e%2e/page.py", "/web//etc/passwd"],
)
def test_no_path_leads_out_of_the_page(visitor: Visitor, path: str) -> None:
    """Only the files that are there at the start are served."""
    answer = visitor.get(path)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not-found"


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """No file names another origin to load from, and nothing in it is inline."""
    for path in FILES:
        text = path.read_text("utf-8")
        assert not re.search(r"""(src|href|url|import|from)\W{1,3}(https?:)?//""", text), path
    page = (WEB / "index.html").read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)


def test_modules_that_are_imported_exist() -> None:
    """Each import of a module names a file that is there, and every icon is in the sprite."""
    sprite = (WEB / "icons.svg").read_text("utf-8")
    for path in WEB.rglob("*.js"):
        for name in re.findall(r'from "(\.[^"]+)"', path.read_text("utf-8")):
            assert (path.parent / name).exists(), (path, name)
    for name in re.findall(r"icons\.svg#([a-z]+)", (WEB / "index.html").read_text("utf-8")):
        assert f'id="{name}"' in sprite, name
