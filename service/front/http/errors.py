"""The one exit of every error: a sentence, a place and a code, and nothing of the inside."""

from __future__ import annotations

import json
from collections.abc import Callable

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AccessDenied, MethodNotAllowed, NotFound, RefineError

_CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that disconnected; only the log has it."""

_log = structlog.get_logger(__name__)


def json_response(
    content: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(content, status_code=status, headers=headers, media_type="application/json")


def error_response(error: RefineError, headers: dict[str, str] | None = None) -> Response:
    """Answer with an error's sentence, place and code."""
    headers = dict(headers or {})
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, AccessDenied):
        headers["WWW-Authenticate"] = "Bearer"
    content = {"error": error.message, "path": error.path, "code": error.code}
    return json_response(json.dumps(content).encode(), error.status, headers)


def install_error_handlers(app: FastAPI, check_key: Callable[[Request], None]) -> None:
    """Make every error of the app leave through `error_response`.

    `check_key` raises AccessDenied where a route is asked for by a wrong method and without a key,
    so that nothing of a route can be learnt without one.
    """

    @app.exception_handler(RefineError)
    async def refused(request: Request, error: RefineError) -> Response:
        request.app.state.front.metrics.refused.labels(error.code).inc()
        return error_response(error)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)

    @app.exception_handler(HTTPException)
    async def routed_nowhere(request: Request, error: HTTPException) -> Response:
        try:
            check_key(request)
        except RefineError as refusal:
            return error_response(refusal)
        return error_response(_to_refusal(error), dict(error.headers or {}))


class UnforeseenErrors:
    """ASGI middleware: a bug answers 500 with an id that stands in the log beside the trace.

    A middleware and not a handler, since starlette would run that one outside of `AccessLog`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def send_noting_start(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting_start)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            request_id = scope["state"]["request_id"]
            _log.error("an unforeseen error", request_id=request_id, exc_info=error)
            if not has_started:
                answer = error_response(
                    RefineError(f"something unforeseen went wrong; the log has it as {request_id}")
                )
                await answer(scope, receive, send)


def _to_refusal(error: HTTPException) -> RefineError:
    if error.status_code == NotFound.status:
        return NotFound("there is nothing at this path; see /docs")
    if error.status_code == MethodNotAllowed.status:
        return MethodNotAllowed("this path does not take this method; see the Allow header")
    raise error
