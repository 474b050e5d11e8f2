"""uvicorn's WebSocket protocol, for peers who send what they should not or stop reading."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_MESSAGE_BYTES = 4 << 20

STALL_S = 5.0
"""How long a reader may take less than `_LEAST_BYTES` while more than that waits for him."""

_LEAST_BYTES = 16 << 10
_LAST_WORDS_S = 2.0
"""How long a peer has to read why he is let go."""

_TRY_AGAIN_LATER = 1013

_log = logging.getLogger("service.front.http.websocket_protocol")
_log.setLevel(logging.WARNING)  # uvicorn logs each path with its query, which may hold a key


class TimeoutWebSocketProtocol(WebSocketsSansIOProtocol):
    """A socket that ends when its peer stops reading.

    Without this `send` would wait for ever, and so would a close: both wait for the buffer.
    """

    _watch: asyncio.TimerHandle | None = None
    _has_given_up = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = _log

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        self._look_no_more()
        super().resume_writing()

    async def send(self, message: ASGISendEvent) -> None:
        if self._has_given_up:
            raise ClientDisconnected
        await super().send(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_no_more()
        super().connection_lost(exc)

    def handle_parser_exception(self) -> None:
        """Close for what the peer sent, but read on for a moment.

        Bytes that lie unread when a connection closes break it, and the code is lost with it.
        """
        if self.close_sent or self.conn.close_sent is None:
            return
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.resume_reading()
        self.close_sent = True
        self.close_timer = self.loop.call_later(_LAST_WORDS_S, self.transport.close)

    def _look_again(self) -> None:
        before = self.transport.get_write_buffer_size()
        self._watch = self.loop.call_later(STALL_S, self._judge, before)

    def _look_no_more(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _judge(self, before: int) -> None:
        if before - self.transport.get_write_buffer_size() >= _LEAST_BYTES:
            self._look_again()
            return
        self._has_given_up = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": _TRY_AGAIN_LATER})
        if not self.close_sent:  # read by a peer who wakes up just now
            self.conn.send_close(_TRY_AGAIN_LATER, "answers were not read")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        self._watch = self.loop.call_later(_LAST_WORDS_S, self.transport.abort)
