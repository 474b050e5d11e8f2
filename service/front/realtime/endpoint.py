"""The realtime door: tickets, and how a WebSocket is opened and closed."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import suppress
from typing import Final

import structlog
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from service.errors import AccessDenied, RateLimited, RefineError
from service.front.access_control.keyring import ANYBODY, Caller
from service.front.dependencies import front_of
from service.front.http.errors import error_response
from service.front.http.origins import check_origin
from service.front.realtime.messages import Hello, read_hello
from service.front.realtime.session import DENIED, Closing, RealtimeSession, error_content
from service.front.state import Front, about_to_end

HELLO_S: Final = 5.0
TRY_AGAIN_LATER: Final = 1013
UNFORESEEN: Final = 1011
_MAX_REASON_BYTES: Final = 123  # RFC 6455, 5.5

_log = structlog.get_logger("access")

router = APIRouter()


@router.websocket("/v1/realtime")
async def realtime(websocket: WebSocket) -> None:
    """Serve one painter. The protocol is in docs/realtime.md."""
    started = time.monotonic()
    counts: Counter[str] = Counter()
    metrics = front_of(websocket).metrics
    try:
        code = await _serve(websocket, counts)
        metrics.count_close(code)
    except RefineError as refusal:
        metrics.refused.labels(refusal.code).inc()
        await websocket.send_denial_response(error_response(refusal))
        code = refusal.status
    elapsed_ms = round(1000 * (time.monotonic() - started), 1)
    _log.info("socket", route="/v1/realtime", code=int(code), elapsed_ms=elapsed_ms, **counts)


async def _serve(websocket: WebSocket, counts: Counter[str]) -> int:
    """Serve until the end; return the closing code. Raises what is refused before it is open."""
    front = front_of(websocket)
    check_origin(websocket.headers, front.settings.origins())
    if front.is_draining:
        raise about_to_end()
    try:
        with front.seats.stranger():
            await websocket.accept()
            caller = await _greeted(websocket, front)
        holder = None if caller is ANYBODY else caller.id
        with front.seats.taken_by(holder, caller.limits.sockets):
            end = await RealtimeSession(websocket, front, caller, counts).serve()
        return end.code if isinstance(end, WebSocketDisconnect) else await _close(websocket, end)
    except RateLimited as full:
        if websocket.application_state is WebSocketState.CONNECTING:
            raise
        return await _close(websocket, Closing(TRY_AGAIN_LATER, full))
    except WebSocketDisconnect as gone:
        return gone.code
    except Closing as closing:
        return await _close(websocket, closing)
    except Exception as error:  # noqa: BLE001 - whatever it is, the socket is closed properly
        _log.error("an unforeseen error", exc_info=error)
        return await _close(websocket, Closing(UNFORESEEN, RefineError("something went wrong")))


async def _greeted(websocket: WebSocket, front: Front) -> Caller:
    """Wait for the greeting; return whose key it shows. Raises Closing or WebSocketDisconnect."""
    try:
        async with asyncio.timeout(HELLO_S):
            message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        peer = websocket.client.host if websocket.client else ""
        return _caller_of(read_hello(message.get("text") or ""), front, peer)
    except TimeoutError:
        late = AccessDenied(f"the first message must come within {HELLO_S:.0f} seconds")
        raise Closing(DENIED, late) from None
    except RefineError as error:
        raise Closing(DENIED, error) from None


def _caller_of(hello: Hello, front: Front, peer: str) -> Caller:
    if front.keys.is_open:
        return ANYBODY
    if hello.ticket is None:
        return front.keys.identify((hello.key or "").strip(), peer=peer)
    caller = front.tickets.redeem(hello.ticket, time.monotonic())
    if caller is None or not front.keys.still_holds(caller):
        raise AccessDenied("a valid key or an unused ticket of the last 30 seconds is required")
    return caller


async def _close(websocket: WebSocket, closing: Closing) -> int:
    """Send the reason, and close. The reason of a close frame is short; browsers often drop it."""
    content = {"type": "error", **error_content(closing.reason)}
    reason = closing.reason.message.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
    with suppress(WebSocketDisconnect):
        await websocket.send_text(json.dumps(content))
        await websocket.close(closing.code, reason)
    return closing.code
