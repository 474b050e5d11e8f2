"""uvicorn's HTTP protocol, for peers who are slow, endless or ambiguous.

uvicorn waits for ever for a request and for a reader, and httptools bounds no header. What this
relies on inside of uvicorn is pinned by tests/front/http/test_protocol.py.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import uuid
from http import HTTPStatus
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.errors import BadRequest
from service.front.http.errors import error_response

_MAX_HEAD_BYTES: Final = 16 << 10
_MAX_HEADERS: Final = 100
_MAX_URL_BYTES: Final = 8 << 10
_KNOWN_METHODS: Final = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"}
)
_METHOD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ")  # a token of RFC 9110, 5.6.2
_STAND_IN: Final = b"TRACE"
_OTHER_METHOD: Final = "OTHER"
_NO_LINGER: Final = struct.pack("ii", 1, 0)  # struct linger: on, for no second
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class HeadTooLarge(BadRequest):
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class UrlTooLong(BadRequest):
    status = HTTPStatus.REQUEST_URI_TOO_LONG


class RequestTooSlow(BadRequest):
    status = HTTPStatus.REQUEST_TIMEOUT


class TimeoutHttpProtocol(HttpToolsProtocol):
    """A connection whose requests and answers have bounds in bytes and seconds.

    An error raised in one of the parser's callbacks comes back to uvicorn's `data_received` as a
    parser's error, and from there to `send_400_response`, which answers it.
    """

    head_s: ClassVar[float] = 10.0
    # All have gone 30 s after they came, on a machine that is busy, too: hence 25.
    request_s: ClassVar[float] = 25.0
    send_s: ClassVar[float] = 25.0
    linger_s: ClassVar[float] = 2.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.access_log = False  # uvicorn's has each path with its query, which may hold a key
        self._refusal: BadRequest | None = None
        self._head_bytes = 0
        self._has_begun = False
        self._is_in_head = True
        self._running: RequestResponseCycle | None = None
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_deadline(self.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            data = data if self._has_begun else _with_known_method(data)
            self._head_bytes += len(data)
        super().data_received(data)
        self._expect_something()
        # A single header without an end never gets to `on_header`.
        if self._is_in_head and self._head_bytes > _MAX_HEAD_BYTES + _MAX_URL_BYTES:
            self._refuse(HeadTooLarge("the request's headers are too large"))

    def _expect_something(self) -> None:
        """Wait no longer than for a head, where uvicorn does for ever: after empty lines."""
        if self.parser is None:
            return  # the connection is a WebSocket's now
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not (self._has_begun or is_answering or self._receiving or self.transport.is_closing()):
            self._set_deadline(self.head_s)

    def handle_websocket_upgrade(self) -> None:
        self._cancel_timers()
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment] # it holds this protocol, which is done with

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._sending is None:
            self._sending = self.loop.call_later(self.send_s, self._abort)

    def resume_writing(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        if self._sending is None:  # what is left to send would keep the connection for ever
            self._sending = self.loop.call_later(self.send_s, self._abort)

    def _abort(self) -> None:
        """Close at once, and drop the unread bytes.

        Without the option the kernel keeps what it took for the peer, megabytes, and the peer never
        hears that the connection has gone.
        """
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    # The answer.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # uvicorn reports the end of the connection only to the request that came last: one that
        # is being answered while others wait behind it would write on, into an error.
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes, self._has_begun, self._is_in_head = 0, True, True
        self._began_at = self.loop.time()
        self._set_deadline(self.head_s)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > _MAX_URL_BYTES:
            self._fail(UrlTooLong(f"the path may have at most {_MAX_URL_BYTES} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        num_bytes = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if num_bytes > _MAX_HEAD_BYTES or len(self.headers) > _MAX_HEADERS:
            bounds = f"{_MAX_HEADERS} headers and {_MAX_HEAD_BYTES} bytes"
            self._fail(HeadTooLarge(f"a request may have at most {bounds} of them"))

    def on_headers_complete(self) -> None:
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            self._fail(BadRequest("a request needs one Host header with a name and a port"))
        self._is_in_head = False
        self._set_deadline(self._began_at + self.request_s - self.loop.time())
        super().on_headers_complete()
        if self.scope["method"] == _STAND_IN.decode():
            self.scope["method"] = _OTHER_METHOD

    def on_message_complete(self) -> None:
        self._has_begun = False
        self._head_bytes, self._is_in_head = 0, True
        self._expect_no_more()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._has_begun and not self._is_in_head:
            # Answered before its body was read: what still comes is passed over for a moment, for
            # bytes that lie unread when a connection closes would break the answer.
            self._unset_keepalive_if_required()
            self._set_deadline(self.linger_s)

    # What is refused.

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own sentence
        self._refuse(self._refusal or BadRequest("this is not an HTTP request"))

    def _fail(self, refusal: BadRequest) -> None:
        self._refusal = self._refusal or refusal
        raise refusal

    def _refuse(self, refusal: BadRequest) -> None:
        """Answer, unless another answer is on its way, and close."""
        if self.transport.is_closing():
            return
        if self._is_free():
            response = error_response(refusal, {"X-Request-Id": uuid.uuid4().hex})
            lines = [b"%b: %b\r\n" % header for header in response.raw_headers]
            head = [STATUS_LINE[response.status_code], *lines, b"connection: close\r\n\r\n"]
            self.transport.write(b"".join([*head, bytes(response.body)]))
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _is_free(self) -> bool:
        """Return whether nothing has been answered yet to a request that is not wholly answered."""
        return self.cycle is None or self.cycle.response_complete or not self.cycle.response_started

    # Time.

    def _set_deadline(self, seconds: float) -> None:
        self._expect_no_more()
        self._receiving = self.loop.call_later(seconds, self._give_up)

    def _expect_no_more(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _cancel_timers(self) -> None:
        self._expect_no_more()
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _give_up(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if self._is_in_head and is_answering:
            self._set_deadline(self.head_s)  # a pipelined request waits: that is our own doing
        elif not self._has_begun or (self.cycle is not None and self._is_past()):
            self.transport.close()
        else:
            self._refuse(RequestTooSlow("the request did not arrive in time"))

    def _is_past(self) -> bool:
        """Return whether the request whose body still comes has been answered."""
        return not self._is_in_head and self.cycle.response_complete


def _with_known_method(data: bytes) -> bytes:
    """Put a method that the parser knows, and no route takes, in the place of an unknown one.

    The parser breaks off at a method that it does not know, and nobody would learn whether there
    is such a path, and what it takes. One that comes in pieces or behind a body is left to it: 400.
    """
    method = _METHOD.match(data)
    if method is None or method[1] in _KNOWN_METHODS:
        return data
    return _STAND_IN + data[method.end(1) :]
