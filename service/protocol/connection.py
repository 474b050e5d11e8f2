"""The framed, length-checked connection between the front and an engine process. Never pickled."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import struct
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from service.protocol.jobs import Failed, Finished, GenerationParams, Job, Progress, StageTimes
from service.protocol.messages import Abort, Add, Fatal, Heartbeat, Message, Ready, Sick

if TYPE_CHECKING:
    from service.protocol.jobs import Pixels


_LENGTHS = struct.Struct("!II")
_MAX_HEADER_BYTES = 1 << 16
_MAX_PIXELS_BYTES = 1 << 26  # four pictures of 2048 x 2048


class ProtocolError(Exception):
    """The other side sent something that is no message; the connection is of no use any more."""


_PLAIN = {kind.__name__: kind for kind in (Abort, Heartbeat, Ready, Fatal, Sick, Failed, Progress)}


class Connection:
    """One end of the socket between the two processes. `send` may be called from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._send_lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send one message, blocking until the other side has taken it in.

        Raises OSError when the other side has gone.
        """
        header, arrays = _pack(message)
        pixels_bytes = sum(array.nbytes for array in arrays)
        with self._send_lock:
            self._socket.sendall(_LENGTHS.pack(len(header), pixels_bytes) + header)
            for array in arrays:
                self._socket.sendall(array.data.cast("B"))

    def receive(self) -> Message:
        """Wait for the next message.

        Raises EOFError when the other side has closed, ProtocolError for what is no message.
        """
        header_bytes, pixels_bytes = _LENGTHS.unpack(self._read(_LENGTHS.size))
        if header_bytes > _MAX_HEADER_BYTES or pixels_bytes > _MAX_PIXELS_BYTES:
            raise ProtocolError("a frame is longer than any message")
        header = self._read(header_bytes)
        return _unpack(header, self._read(pixels_bytes))

    def close(self) -> None:
        """Close, which the other side reads as the end."""
        with contextlib.suppress(OSError):  # the other side was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, num_bytes: int) -> bytearray:
        buffer = bytearray(num_bytes)
        view = memoryview(buffer)
        while view:
            received = self._socket.recv_into(view)
            if received == 0:
                raise EOFError
            view = view[received:]
        return buffer


def _pack(message: Message) -> tuple[bytes, list[Pixels]]:
    if isinstance(message, Add):
        job = message.job
        arrays = (
            {"image": job.image} if job.mask is None else {"image": job.image, "mask": job.mask}
        )
        fields = {**_fields(job, "image", "mask"), "params": asdict(job.params)}
    elif isinstance(message, Finished):
        arrays = {"images": message.images}
        fields = {**_fields(message, "images"), "times": asdict(message.times)}
    else:
        arrays, fields = {}, asdict(message)
    shapes = {name: array.shape for name, array in arrays.items()}
    header = {"type": type(message).__name__, "shapes": shapes, "fields": fields}
    return json.dumps(header).encode(), [np.ascontiguousarray(array) for array in arrays.values()]


def _unpack(header: bytearray, payload: bytearray) -> Message:
    try:
        content = json.loads(header)
        kind = content["type"]
        fields = content["fields"] | _to_arrays(payload, content["shapes"])
        if kind == Add.__name__:
            return Add(Job(**fields | {"params": _to_params(fields["params"])}))
        if kind == Finished.__name__:
            return Finished(**fields | {"times": StageTimes(**fields["times"])})
        return _PLAIN[kind](**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError("a frame holds no message") from error


def _fields(value: Any, *arrays: str) -> dict[str, Any]:
    return {name: item for name, item in vars(value).items() if name not in arrays}


def _to_params(fields: dict[str, Any]) -> GenerationParams:
    origins = tuple((y, x) for y, x in fields["origins"])
    return GenerationParams(**fields | {"seeds": tuple(fields["seeds"]), "origins": origins})


def _to_arrays(payload: bytearray, shapes: dict[str, list[int]]) -> dict[str, Pixels]:
    if sum(math.prod(shape) for shape in shapes.values()) != len(payload):
        raise ProtocolError("a frame's pixels do not fill their shapes")
    arrays, start = {}, 0
    for name, shape in shapes.items():
        flat = np.frombuffer(payload, dtype=np.uint8, count=math.prod(shape), offset=start)
        arrays[name] = flat.reshape(shape)
        start += flat.size
    return arrays
