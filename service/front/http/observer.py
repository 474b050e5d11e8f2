"""What every request gets: an id, a line in the log, and nothing of its content in either."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")

_log = structlog.get_logger("access")


class AccessLog:
    """ASGI middleware: echoes or draws `X-Request-Id` and logs status and time of a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            _log.info(
                "request",
                method=scope["method"],
                route=_route(scope),
                status=status,
                elapsed_ms=round(1000 * (time.monotonic() - started), 1),
                request_id=request_id,
                key_id=_key_id(scope),
            )


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _key_id(scope: Scope) -> str:
    return getattr(scope["state"].get("caller"), "id", "none")


def _route(scope: Scope) -> str:
    """Return the path of the route that matched, never the path as it was asked for."""
    route = scope.get("route")
    return getattr(route, "path", "none")
