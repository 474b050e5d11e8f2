"""The Host header of a service without keys: only this machine's own names, or those listed.

A page of another site can point its own name at 127.0.0.1 (DNS rebinding) and would then be of
the same origin as this service. Such a request still carries the page's name.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import BadRequest
from service.front.http.errors import error_response

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class HostAllowlist:
    """ASGI middleware of a service without keys: refuses foreign hosts."""

    def __init__(self, app: ASGIApp, *, allowed: frozenset[str], is_open: bool) -> None:
        self._app = app
        self._allowed = _LOOPBACK | allowed
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "lifespan"
            and self._is_open
            and not self._is_known(Headers(scope=scope))
        ):
            refusal = BadRequest("the Host header names another machine; see REFINE_ALLOWED_HOSTS")
            await error_response(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, headers: Headers) -> bool:
        given = headers.getlist("host")
        return len(given) == 1 and _name(given[0]) in self._allowed


def _name(host: str) -> str:
    """Return a Host header without its port and brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
