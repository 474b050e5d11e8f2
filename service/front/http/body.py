"""The request's body and its end: read under a cap, and watched for a caller who goes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from service.errors import BadRequest, BodyTooLarge, UnsupportedMediaType
from service.front.access_control.body_budget import BudgetedBody

T = TypeVar("T")

_JSON = "application/json"


async def read_json_body(request: Request, body: BudgetedBody, max_bytes: int) -> None:
    """Read a JSON body of at most `max_bytes`; headers are judged before a byte is read.

    Raises UnsupportedMediaType, BodyTooLarge, what `BudgetedBody.append` does, or ClientDisconnect
    when the caller goes.
    """
    _check_headers(request, max_bytes)
    async for chunk in request.stream():
        if len(body) + len(chunk) > max_bytes:
            raise BodyTooLarge(f"the body must be at most {max_bytes} bytes")
        body.append(chunk)


def _check_headers(request: Request, max_bytes: int) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _JSON:
        raise UnsupportedMediaType(f"the Content-Type must be {_JSON}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("the body must not be compressed")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal():
        raise BadRequest("the Content-Length must be a number")
    if int(length) > max_bytes:
        raise BodyTooLarge(f"the body must be at most {max_bytes} bytes")


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Run `work`, but cancel it when the caller goes. The body must have been read.

    Raises ClientDisconnect when the caller went first.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await _cancel(task)
        await _cancel(watcher)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cancel(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
