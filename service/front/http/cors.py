"""Which pages of other origins may call the API from a browser: those that are listed, exactly."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from service.errors import OriginRefused
from service.front.http.errors import error_response

_REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "X-Request-Id", "X-Request-Timeout-Ms")
_ANSWER_HEADERS: Final = (
    "X-Request-Id", "X-Seed", "X-Steps-Run", "Server-Timing", "Retry-After",
)  # fmt: skip


class Cors(CORSMiddleware):
    """Starlette's, for bearer keys alone: no cookie is asked for, and none would be looked at."""

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        super().__init__(
            app,
            allow_origins=sorted(origins),
            allow_methods=("GET", "POST"),
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_ANSWER_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        headers = {
            name: value
            for name, value in answer.headers.items()
            if name not in ("content-length", "content-type")
        }
        if answer.status_code == Response().status_code:
            return Response(headers=headers)
        return error_response(
            OriginRefused("this origin, method or header is not allowed"), headers
        )
