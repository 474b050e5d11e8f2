"""What the tests of the realtime door share: a painter who speaks the protocol, step by step."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.servers import KEY

WAIT_S = 120.0  # the longest upscale of a real engine on a busy machine


def picture(colour: tuple[int, int, int] = (200, 30, 60), file_format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (512, 512), colour).save(file, file_format)
    return file.getvalue()


PICTURE = picture()


class PainterSocket:
    """A socket that says what it is told to, and returns what it is answered."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def tell(self, kind: str, **content: Any) -> None:
        self.connection.send(json.dumps({"type": kind, **content}))

    def frame(self, frame_id: int, /, *, file: bytes | None = PICTURE, **fields: Any) -> None:
        self.tell("frame", id=frame_id, **{"prompt": "a boat", **fields})
        if file is not None:
            self.connection.send(file)

    def hear(self) -> dict[str, Any]:
        """Return the next message besides status; a result's pictures as `files`."""
        content: dict[str, Any] = json.loads(self.connection.recv(WAIT_S))
        if content["type"] == "status":
            return self.hear()
        if content["type"] == "result":
            files = [self.connection.recv(WAIT_S) for _ in range(content["pictures"])]
            assert all(isinstance(file, bytes) for file in files)
            content["files"] = files
        return content

    def result(self, frame_id: int) -> dict[str, Any]:
        content = self.hear()
        assert (content["type"], content.get("id")) == ("result", frame_id), content
        return content

    def error(self, code: str, path: str = "$", frame_id: int | None = None) -> dict[str, Any]:
        content = self.hear()
        assert content["type"] == "error", content
        assert (content["code"], content["path"], content.get("id")) == (code, path, frame_id)
        return content

    def closed(self, timeout_s: float = WAIT_S) -> int:
        """Read on until the socket is closed; return the code."""
        try:
            while True:
                self.connection.recv(timeout_s)
        except ConnectionClosed as closed:
            return int(closed.rcvd.code) if closed.rcvd else 1006


@contextmanager
def opened(url: str, **options: Any) -> Iterator[PainterSocket]:
    """Open a socket that has said nothing yet."""
    address = url.replace("http", "ws", 1) + "/v1/realtime"
    with connect(address, max_size=None, compression=None, **options) as connection:
        yield PainterSocket(connection)


@contextmanager
def greeted(url: str, key: str | None = KEY, **options: Any) -> Iterator[PainterSocket]:
    """Open a socket with a key; its `ready` has been read."""
    with opened(url, **options) as socket:
        socket.tell("hello", **({} if key is None else {"key": key}))
        assert socket.hear()["type"] == "ready"
        yield socket
