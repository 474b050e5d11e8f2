"""Who gets in, on every route there is; what other origins may do; and what the log never holds."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.routing import BaseRoute
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from service.front.app import HOSTED_PREFIX, create_app
from service.settings import Settings
from tests.support import canary
from tests.support.api import ROUTES
from tests.support.fakes import FakeEngineClient
from tests.support.servers import KEY, running_server

PAGE = "https://canvas.example"
OPEN = {
    "/", "/web/{path:path}", "/health/live", "/health/ready", "/docs", "/docs/oauth2-redirect",
    "/openapi.json", "/static-offline-docs",
}  # fmt: skip
"""What says nothing that a stranger may not know; every other route needs a key."""


def all_routes() -> list[tuple[str, str]]:
    """The path and a method of each route of the application, found in it: (path, method or WS)."""
    found: dict[tuple[str, str], None] = {}

    def visit(routes: list[BaseRoute], prefix: str) -> None:
        for route in routes:
            inner = getattr(route, "original_router", None) or getattr(route, "router", None)
            path = getattr(route, "path", None)
            if inner is not None and not isinstance(route, APIRoute):
                context = getattr(route, "include_context", route)
                visit(inner.routes, prefix + str(getattr(context, "prefix", "") or ""))
            elif path is not None:
                for method in sorted(getattr(route, "methods", None) or {"WS"}):
                    found[prefix + path, method] = None

    app: FastAPI = create_app(Settings(api_keys=KEY), FakeEngineClient())
    visit(list(app.routes), "")
    return [(path, method) for path, method in found if path not in OPEN]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server(api_keys=KEY, allowed_origins=PAGE) as url:
        yield url


def test_the_routes_are_found() -> None:
    """The search sees both prefixes and the socket, so that a new route cannot hide from it."""
    found = all_routes()
    for route in [*ROUTES, "/lcm-inpainting", "/lcm-upscale"]:
        assert (route, "POST") in found
        assert (HOSTED_PREFIX + route, "POST") in found
    assert ("/v1/realtime", "WS") in found
    assert ("/v1/models", "GET") in found


@pytest.mark.parametrize("given", [None, "Bearer wrong", f"Basic {KEY}", f"?api_key={KEY}"])
@pytest.mark.parametrize(("path", "method"), all_routes())
def test_no_route_answers_without_the_key(
    url: str, path: str, method: str, given: str | None
) -> None:
    """By no method, with none, a wrong one, another scheme, or the key in the address."""
    if method == "WS":
        check_socket(url, path, given)
        return
    query = given if given and given.startswith("?") else ""
    headers = {"authorization": given} if given and not query else {}
    for asked in (method, "OPTIONS"):
        answer = httpx.request(asked, url + path + query, headers=headers)
        assert answer.status_code in (401, 429)
        assert answer.status_code == 429 or answer.headers["www-authenticate"] == "Bearer"


def check_socket(url: str, path: str, given: str | None) -> None:
    with connect(url.replace("http", "ws") + path) as socket:
        socket.send(json.dumps({"type": "hello", "key": given or ""}))
        assert json.loads(socket.recv(10))["code"] == "access-denied"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401


def test_a_listed_page_may_call(url: str) -> None:
    """A preflight needs no key and has no body; answers and errors name the page alone."""
    preflight = {"origin": PAGE, "access-control-request-method": "POST"}
    headers = {**preflight, "access-control-request-headers": "authorization, content-type"}
    answer = httpx.options(url + ROUTES[0], headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-credentials" not in answer.headers
    for path in ("/health/live", "/v1/models", "/nothing"):
        answer = httpx.get(url + path, headers={"origin": PAGE})
        assert answer.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    "origin", ["null", PAGE + ".evil.example", "http://canvas.example", PAGE + ":8443", "https://e"]
)
def test_another_page_may_not(url: str, origin: str) -> None:
    """Only the exact origin counts: no other scheme, port, or name that begins alike."""
    headers = {"origin": origin, "access-control-request-method": "POST"}
    answer = httpx.options(url + ROUTES[0], headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    answer = httpx.get(url + "/health/live", headers={"origin": origin})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origins", ["*", "null", "canvas.example", PAGE + "/", PAGE + "/x"])
def test_origins_are_exact_or_refused_at_the_start(origins: str) -> None:
    """No wildcard, since whoever holds a page could then ask."""
    with pytest.raises(ValidationError, match="must be exact"):
        Settings(allowed_origins=origins)


def test_a_stranger_cannot_say_another_s_address(url: str) -> None:
    """`X-Forwarded-For` counts from a proxy on this machine alone: elsewhere it buys no try."""

    def try_keys(sender: str, number: int) -> list[int]:
        with httpx.Client(transport=httpx.HTTPTransport(local_address=sender)) as http:
            return [
                http.get(
                    url + "/v1/models",
                    headers={
                        "authorization": "Bearer wrong",
                        "x-forwarded-for": f"10.0.{number}.{i}",
                        "forwarded": f"for=10.0.{number}.{i}",
                    },
                ).status_code
                for i in range(70)
            ]

    assert try_keys("127.0.0.2", 1).count(429) >= 9
    assert try_keys("127.0.0.1", 2) == [401] * 70


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_is_ever_told(log_format: str) -> None:
    """Keys, prompts, pictures and field names stay out of log, answers, messages and metrics.

    At every level, bugs included, over HTTP and over a socket: the other end holds each answer
    against them itself.
    """
    command = [sys.executable, "-m", "tests.support.canary", log_format]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    logged = ended.stdout + ended.stderr
    assert ended.returncode == 0, logged
    assert "ZeroDivisionError" in logged
    assert "key-1" in logged
    for mark in [canary.CANARY, canary.PICTURE[60:100], canary.PICTURE[-60:-20]]:
        assert mark not in logged


def test_keys_are_checked_on_the_event_loop() -> None:
    """No request takes a thread for it: threads bring arenas of their own, and waits."""
    headers = {"authorization": f"Bearer {KEY}"}
    before = set(threading.enumerate())
    with running_server(api_keys=KEY) as url:
        for _ in range(3):
            assert httpx.get(url + "/v1/styles", headers=headers).status_code == 200
        names = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [name for name in names if "worker" in name.lower()]
