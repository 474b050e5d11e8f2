"""What routes get from a request: the application state and the caller, after checking the key."""

from __future__ import annotations

from typing import Annotated

from fastapi import Security
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection, Request

from service.front.access_control.keyring import Caller
from service.front.state import Front


def front_of(connection: HTTPConnection) -> Front:
    """Return the front that serves a request or a socket."""
    front: Front = connection.app.state.front
    return front


async def require_key(
    request: Request,
    _documented: Annotated[object, Security(HTTPBearer(auto_error=False))],
) -> None:
    """Refuse a caller without a key, before anything of the body is read; note whose it is.

    Raises AccessDenied or RateLimited. The bearer scheme is named so that `/docs` offers to send
    a key. It waits for nothing, but a plain function would be run on a thread of its own.
    """
    _authenticate(request)


def check_key_of_route(request: Request) -> None:
    """Raise what `require_key` does where the route that a path led to asks for a key."""
    dependencies = getattr(request.scope.get("route"), "dependencies", [])
    if any(depends.dependency is require_key for depends in dependencies):
        _authenticate(request)


def _authenticate(request: Request) -> None:
    peer = request.client.host if request.client else ""
    request.state.caller = front_of(request).keys.authenticate(request.headers, peer=peer)


def caller_of(request: Request) -> Caller:
    """Return whose request it is; `require_key` has noted it."""
    caller: Caller = request.state.caller
    return caller
