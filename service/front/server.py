"""uvicorn with a drain: the first signal lets running requests end, the second one does not."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
import threading
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from models.malloc import KIB
from service.front.http.protocol import TimeoutHttpProtocol
from service.front.http.websocket_protocol import MAX_MESSAGE_BYTES, TimeoutWebSocketProtocol
from service.front.state import Front
from service.settings import Settings

_SWITCH_S = 0.0005
"""How long a codec's thread may keep the interpreter while the event loop wants it.

With Python's 5 ms the loop stalled for 58 and 78 ms under 8 clients, with this for 41 and 49.
"""

MAPPED_BYTES = 128 * KIB
"""From which size the front's buffers are mapped: what pictures need goes back when it is freed.

50 pictures at the caps at once took 311 to 326 MB more before, with this 274 and 275.
"""

_SENDING_S = 10
"""How long the last answers may take on their way to slow readers."""

_KEEP_ALIVE_S = 15
"""How long a connection may stay open without a request."""

_log = structlog.get_logger(__name__)


class DrainingServer(uvicorn.Server):
    """Refuses new requests with 503 while it drains, so that a load balancer goes elsewhere."""

    def __init__(self, config: uvicorn.Config, front: Front) -> None:
        super().__init__(config)
        self._front = front
        self._tasks: list[asyncio.Task[None]] = []
        self.failure = ""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            self._loop.add_signal_handler(signal.SIGHUP, self._front.keys.reload)
        self._tasks.append(self._loop.create_task(self._end_if_engine_fails()))
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """Drain on the first signal, end the requests on the second, all on the third."""
        _log.info("told to end", signal=signal.Signals(sig).name)
        if self.should_exit:
            self.force_exit = True
        elif not self.started:
            self.should_exit = True
        elif self._front.is_draining:
            self._loop.call_soon_threadsafe(self._end_now)
        else:
            self._front.is_draining = True
            self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        _log.info("draining", active=self._front.num_active)
        self._tasks.append(self._loop.create_task(self._end_when_idle()))

    async def _end_when_idle(self) -> None:
        settings = self._front.settings
        await asyncio.sleep(settings.drain_delay_s)
        try:
            async with asyncio.timeout(settings.drain_timeout_s):
                await self._front.wait_until_idle()
        except TimeoutError:
            _log.warning("requests did not end in time", active=self._front.num_active)
        self._end_now()

    def _end_now(self) -> None:
        """Answer what still runs with 503, and leave the connections to uvicorn."""
        self._front.abort_active()
        self.should_exit = True

    async def _end_if_engine_fails(self) -> None:
        """End with the engine's own sentence when it cannot start, rather than never be ready."""
        health = await self._front.client.wait_until("failed")
        self.failure = health.message
        self.should_exit = True


def create_server(app: FastAPI, settings: Settings) -> DrainingServer:
    """Return a server for the app on the settings' address; `run` it."""
    sys.setswitchinterval(_SWITCH_S)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=TimeoutHttpProtocol,
        timeout_keep_alive=_KEEP_ALIVE_S,
        ws=TimeoutWebSocketProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # pictures are compressed already, and bombs are not
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SENDING_S,
    )
    return DrainingServer(config, app.state.front)
