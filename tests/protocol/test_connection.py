"""Messages cross the socket whole, and junk is told from them."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from service.protocol.connection import Connection, ProtocolError
from service.protocol.jobs import Failed, Finished, GenerationParams, Job, Progress, StageTimes
from service.protocol.messages import Abort, Add, Fatal, Heartbeat, Message, Ready

PIXELS = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
PARAMS = GenerationParams("a \U0001f680 boat\n", 1024, 1024, 4, 0.5, 8.0, (1, 9_999_999_998))
MESSAGES: list[Message] = [
    Add(Job("a", PARAMS, PIXELS, 12.5, reports_progress=True)),
    Add(Job("a", PARAMS, PIXELS, float("inf"))),
    Add(Job("a", PARAMS, PIXELS, 12.5, mask=PIXELS[..., 0])),
    Abort("a"),
    Heartbeat("serving", num_waiting=3),
    Ready("cpu", "float32", "pocket", 1),
    Fatal("no such device"),
    Progress("a", 2, 4),
    Failed("a", "generation-failed"),
    Finished("a", PIXELS[None], 4, 2, StageTimes(1, 2, 3, 4, 5)),
]


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    one, other = Connection(ours), Connection(theirs)
    yield one, other, ours
    one.close()
    other.close()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(
    ends: tuple[Connection, Connection, socket.socket], message: Message
) -> None:
    """Every kind, with pictures larger than a socket's buffer, comes out equal."""
    one, other, _ = ends
    sender = threading.Thread(target=one.send, args=(message,))
    sender.start()
    received = other.receive()
    sender.join()
    assert type(received) is type(message)
    assert fields(received) == fields(message)


def fields(message: object) -> object:
    """A message as plain values, since arrays do not compare to one truth."""
    if isinstance(message, np.ndarray):
        return message.shape, message.tobytes()
    if hasattr(message, "__dataclass_fields__"):
        return {name: fields(value) for name, value in vars(message).items()}
    return message


def test_the_end_is_told(ends: tuple[Connection, Connection, socket.socket]) -> None:
    """When one side closes, the other one's `receive` ends with EOFError."""
    one, other, _ = ends
    one.close()
    with pytest.raises(EOFError):
        other.receive()


def frame(header: bytes, payload: bytes = b"") -> bytes:
    return struct.pack("!II", len(header), len(payload)) + header + payload


JUNK = [
    b"GET / HTTP/1.1\r\n\r\n",
    struct.pack("!II", 1 << 31, 0),
    struct.pack("!II", 2, 1 << 31) + b"{}",
    frame(b"{}"),
    frame(b"not json"),
    frame(json.dumps({"type": "Nothing", "fields": {}, "shapes": {}}).encode()),
    frame(json.dumps({"type": "Abort", "fields": {"other": 1}, "shapes": {}}).encode()),
    frame(json.dumps({"type": "Abort", "fields": {"job_id": "a"}, "shapes": [1]}).encode()),
    frame(
        json.dumps({"type": "Finished", "fields": {}, "shapes": {"images": [2, 2]}}).encode(),
        b"abc",
    ),
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_junk_is_no_message(
    ends: tuple[Connection, Connection, socket.socket], junk: bytes
) -> None:
    """Lengths are checked before anything is read, and content before it is believed."""
    _, other, raw = ends
    raw.sendall(junk)
    with pytest.raises(ProtocolError):
        other.receive()
