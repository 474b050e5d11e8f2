"""A Python client of `/v1/realtime`: draw, and watch. docs/realtime.md has the protocol.

    async with RealtimeClient("http://127.0.0.1:8000", key="...") as live:
        live.send(jpeg, prompt="a boat", seed=7)
        async for answer in live:
            print(answer.kind, answer.id, len(answer.files))

It connects again by itself when the service goes, and then asks again for the newest picture.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.25, 10.0
_FINAL = frozenset({400, 403, 404, 1007, 1008, 1009, 4401})


class Answer(NamedTuple):
    """What became of a frame: a result with its files, replaced, or an error, maybe of no frame."""

    kind: str
    id: int | None
    content: dict[str, Any]
    files: Sequence[bytes] = ()


class _Frame(NamedTuple):
    id: int
    file: bytes | None
    fields: dict[str, Any]


class RealtimeClient:
    """One painter. Iterating yields answers, and raises what connecting again would not mend.

    `status` holds the last status message; it is empty without a connection.
    """

    def __init__(self, url: str, *, key: str | None = None) -> None:
        self._address = url.rstrip("/").replace("http", "ws", 1) + "/v1/realtime"
        self._key = {} if key is None else {"key": key}
        self._last_id = 0
        self._backoff_s = _FIRST_BACKOFF_S
        self._unsent: _Frame | None = None
        self._unanswered: dict[int, _Frame] = {}
        self._is_ready, self._has_unsent = asyncio.Event(), asyncio.Event()
        self._answers: asyncio.Queue[Answer | Exception] = asyncio.Queue()
        self.status: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._stay_connected())
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    def send(self, file: bytes | None = None, /, **fields: Any) -> int:
        """Ask for a picture, in the words of the wire; return the id of its answer, at once.

        A frame that has not left yet gives way to this one.
        """
        self._last_id += 1
        older, self._unsent = self._unsent, _Frame(self._last_id, file, fields)
        self._has_unsent.set()
        if older is not None:
            self._give_way(older)
        return self._last_id

    async def __aiter__(self) -> AsyncIterator[Answer]:
        while True:
            answer = await self._answers.get()
            if isinstance(answer, Exception):
                raise answer
            yield answer

    async def _stay_connected(self) -> None:
        while True:
            try:
                async with connect(self._address, max_size=None, compression=None) as socket:
                    await self._converse(socket)
            except (OSError, EOFError, ConnectionClosed, InvalidStatus) as error:
                if _is_final(error):
                    self._answers.put_nowait(error)
                    return
            self._take_back()
            await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            self._backoff_s = min(2 * self._backoff_s, _LAST_BACKOFF_S)

    async def _converse(self, socket: ClientConnection) -> None:
        await socket.send(json.dumps({"type": "hello", **self._key}))
        writer = asyncio.create_task(self._write(socket))
        try:
            async for message in socket:
                await self._read(socket, json.loads(message))
        finally:
            writer.cancel()
            await asyncio.wait({writer})

    async def _write(self, socket: ClientConnection) -> None:
        while await self._is_ready.wait() and await self._has_unsent.wait():
            self._has_unsent.clear()
            frame, self._unsent = self._unsent, None
            if frame is not None:
                self._unanswered[frame.id] = frame
                await socket.send(json.dumps({"type": "frame", "id": frame.id, **frame.fields}))
                if frame.file is not None:
                    await socket.send(frame.file)

    async def _read(self, socket: ClientConnection, content: dict[str, Any]) -> None:
        kind, frame_id = content["type"], content.get("id")
        if kind == "ready":
            self.status, self._backoff_s = content, _FIRST_BACKOFF_S
            self._is_ready.set()
        elif kind != "status":
            files = [await socket.recv(decode=False) for _ in range(content.get("pictures", 0))]
            self._unanswered.pop(frame_id or 0, None)
            self._answers.put_nowait(Answer(kind, frame_id, content, files))
        self.status.update({name: content[name] for name in self.status.keys() & content.keys()})

    def _take_back(self) -> None:
        """Keep the newest of what was lost, to be sent again; the others give way to it."""
        self.status = {}
        self._is_ready.clear()
        lost, self._unanswered = list(self._unanswered.values()), {}
        if self._unsent is None and lost:
            self._unsent = lost.pop()
            self._has_unsent.set()
        for frame in lost:
            self._give_way(frame)

    def _give_way(self, frame: _Frame) -> None:
        content = {"id": frame.id, "by": None if self._unsent is None else self._unsent.id}
        self._answers.put_nowait(Answer("replaced", frame.id, content))


def _is_final(error: Exception) -> bool:
    if isinstance(error, InvalidStatus):
        return error.response.status_code in _FINAL
    closed = error.rcvd if isinstance(error, ConnectionClosed) else None
    return closed is not None and closed.code in _FINAL
