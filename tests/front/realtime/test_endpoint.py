"""The realtime protocol, against a real server with a fake engine, and against whole services."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.api_keys import KeyRecord, digest_of, write_keys
from service.errors import EngineStarting, GenerationFailed, QueueFull
from service.front.generation import ROUTES
from tests.support.api import STAGES, Api, data_url, picture_of
from tests.support.backends import Witness
from tests.support.fakes import FakeEngineClient
from tests.support.servers import running_server, wait_until
from tests.support.sockets import PICTURE, greeted, opened, picture

MASK = data_url(Image.new("L", (512, 512), 255))


def test_a_greeting_is_answered_with_what_a_page_needs(api: Api) -> None:
    """The engine's state, the pace before any frame, and the limits."""
    with opened(api.url) as socket:
        socket.tell("hello", key="another")
        ready = socket.hear()
    assert (ready["type"], ready["state"], ready["ready"]) == ("ready", "serving", True)
    assert ready["limits"]["messageBytes"] == 4 << 20
    assert ready["limits"]["deadlineS"].keys() == ROUTES.keys()
    assert {"meanMs", "intervalMs", "pauseMs", "pending", "phase", "reason"} <= ready.keys()


@pytest.mark.real_engines
@pytest.mark.parametrize("is_binary", [True, False])
def test_a_frame_is_answered_as_over_http(api: Api, *, is_binary: bool) -> None:
    """Either way the picture comes, it is that of the same request over HTTP, to the byte."""
    url = "data:image/jpeg;base64," + base64.b64encode(PICTURE).decode()
    asked: dict[str, Any] = {"seed": 5, "style": "ANIME", "requestTimestamp": 1.5}
    response = api.refine("/generations-lcm", imageDataUrl=url, **asked)
    with greeted(api.url) as socket:
        if is_binary:
            socket.frame(1, **asked, binary=True)
        else:
            socket.frame(1, file=None, imageDataUrl=url, **asked)
        result = socket.result(1)
    assert result.pop("files") == [picture_of(response)]
    job = response.json()["lcmGenerationJob"]
    del job["imageDataUrl"]
    assert job.items() <= result.items()
    assert list(result["stages"]) == STAGES
    assert result["meanMs"] > 0
    assert (result["pictures"], result["format"]) == (1, "jpeg")


@pytest.mark.real_engines
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_can_be_asked(api: Api, route: str) -> None:
    """An upscale answers at twice the size, an inpainting takes its mask."""
    fields: dict[str, Any] = {"maskDataUrl": MASK} if route == "lcm-inpainting" else {}
    with greeted(api.url) as socket:
        socket.frame(0, route=route, outputFormat="png", **fields)
        [file] = socket.result(0)["files"]
    side = 1024 if route == "lcm-upscale" else 512
    with Image.open(io.BytesIO(file)) as image:
        assert (image.format, image.size) == ("PNG", (side, side))


def test_a_ticket_opens_one_socket(api: Api) -> None:
    """It stands in for the key that it was asked with, once."""
    answer = api.http.post("/v1/tickets")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["expiresInS"] == 30
    ticket = answer.json()["ticket"]
    with opened(api.url) as socket:
        socket.tell("hello", ticket=ticket)
        assert socket.hear()["type"] == "ready"
    with opened(api.url) as socket:
        socket.tell("hello", ticket=ticket)
        socket.error("access-denied")
        assert socket.closed() == 4401


@pytest.mark.parametrize(
    "first",
    [
        '{"type":"hello"}', '{"type":"hello","key":"wrong"}', '{"type":"hello","ticket":"x"}',
        '{"type":"hello","key":"\\u00e9\\ud800"}', '{"type":"hello","password":"x"}',
        '{"type":"frame","id":1}', "{", "[]", b"\x00",
    ],
    ids=range(9),
)  # fmt: skip
def test_another_greeting_is_told_why_and_closed(
    api: Api, witness: Witness, first: str | bytes
) -> None:
    """Nobody gets further without a valid key, whatever comes first."""
    with opened(api.url) as socket:
        socket.connection.send(first)
        assert socket.hear()["type"] == "error"
        assert socket.closed() == 4401
    assert witness.num_asked == 0


def test_the_newest_frame_takes_the_place_of_the_one_that_waits(
    api: Api, engine: FakeEngineClient
) -> None:
    """While one runs, all but the last of the others are told that they will not, and by which."""
    engine.is_open.clear()
    with greeted(api.url) as socket:
        socket.frame(1)
        wait_until(lambda: len(engine.asked) == 1, 5)
        for frame_id in (2, 3, 4, 7):
            socket.frame(frame_id, file=picture((frame_id, 0, 0)))
        for replaced, by in ((2, 3), (3, 4), (4, 7)):
            assert socket.hear() == {"type": "replaced", "id": replaced, "by": by}
        engine.loop.call_soon_threadsafe(engine.is_open.set)
        socket.result(1)
        socket.result(7)
    assert len(engine.asked) == 2


def test_a_replaced_picture_is_not_decoded(api: Api, engine: FakeEngineClient) -> None:
    """A broken picture that waits costs nothing when a newer frame comes; alone it is refused."""
    engine.is_open.clear()
    with greeted(api.url) as socket:
        socket.frame(1)
        wait_until(lambda: len(engine.asked) == 1, 5)
        socket.frame(2, file=b"broken")
        socket.frame(3, file=b"broken too")
        assert socket.hear() == {"type": "replaced", "id": 2, "by": 3}
        engine.loop.call_soon_threadsafe(engine.is_open.set)
        socket.result(1)
        socket.error("image-invalid", "$.imageDataUrl", 3)


def test_an_equal_frame_is_answered_from_the_last_result(api: Api, witness: Witness) -> None:
    """With a seed and the same picture the engine is not asked; anything else asks it."""
    with greeted(api.url) as socket:
        socket.frame(1, seed=3)
        first = socket.result(1)
        socket.frame(2, seed=3, requestTimestamp="now")
        again = socket.result(2)
        assert again["files"] == first["files"]
        assert (again["repeated"], again["requestTimestamp"]) == (True, "now")
        assert witness.num_asked == 1
        others: list[dict[str, Any]] = [
            {"seed": 4}, {"seed": 4, "prompt": "a ship"}, {"seed": 4, "file": picture((1, 2, 3))},
            {"seed": 4, "route": "lcm-instant-refine"}, {}, {},
        ]  # fmt: skip
        for frame_id, other in enumerate(others, 3):
            socket.frame(frame_id, **other)
            assert "repeated" not in socket.result(frame_id)
    assert witness.num_asked == 1 + len(others)


@pytest.mark.parametrize(
    ("fields", "code", "path"),
    [
        ({"steps": 3}, "validation-failed", "$.steps"),
        ({"strenght": 0.5}, "bad-request", "$.strenght"),
        ({"route": "lcm-upscal"}, "validation-failed", "$.route"),
        ({"route": ["x"]}, "validation-failed", "$.route"),
        ({"prompt": None}, "validation-failed", "$.prompt"),
        ({"imageDataUrl": "x", "binary": True}, "bad-request", "$.imageDataUrl"),
    ],
)
def test_a_refused_frame_leaves_the_socket_open(
    api: Api, witness: Witness, fields: dict[str, Any], code: str, path: str
) -> None:
    """As over HTTP, with the frame's id; the picture that follows is skipped."""
    with greeted(api.url) as socket:
        for frame_id in range(4):  # more than three: these are no strikes
            socket.frame(frame_id, **fields)
            socket.error(code, path, frame_id)
        socket.frame(9)
        socket.result(9)
    assert witness.num_asked == 1


def test_a_frame_without_its_picture_is_told(api: Api) -> None:
    """A frame where a picture should follow does not swallow the next one."""
    with greeted(api.url) as socket:
        socket.frame(1, file=None)
        socket.frame(2)
        socket.error("validation-failed", "$.imageDataUrl", 1)
        socket.result(2)
        socket.frame(3, file=None, binary=False)
        socket.error("validation-failed", "$.imageDataUrl", 3)


def test_ids_must_rise(api: Api) -> None:
    """An id again, or a lower one, is refused by a message that is no frame's answer."""
    with greeted(api.url) as socket:
        socket.frame(5)
        socket.result(5)
        for frame_id in (5, 4, 0, 5):
            socket.frame(frame_id)
            socket.error("validation-failed", "$.id")
        socket.frame(6)
        socket.result(6)


@pytest.mark.parametrize(
    "message",
    [
        "{", "[]", "7", '{"type":"frame"}', '{"type":"paint","id":1}', '{"type":"hello"}', "{}",
        '{"type":"frame","id":-1}', '{"type":"frame","id":1.0}', '{"type":"frame","id":true}',
        '{"type":"frame","id":9007199254740992}', '{"type":"frame","id":1,"id":2}',
        '{"type":"frame","id":1,"binary":1}', '{"type":"frame","id":"\\ud800"}', b"no frame",
        '{"a":' * 30_000,
    ],
    ids=range(16),
)  # fmt: skip
def test_the_third_senseless_message_ends_the_socket(api: Api, message: str | bytes) -> None:
    """Two are answered and the socket stays in use; the third is told why, with 1008."""
    with greeted(api.url) as socket:
        for _ in range(2):
            socket.connection.send(message)
            assert socket.hear()["type"] == "error"
        socket.frame(3)
        socket.result(3)
        socket.connection.send(message)
        assert socket.hear()["type"] == "error"
        assert socket.closed() == 1008


def test_a_frame_waits_while_the_queue_is_full(api: Api, engine: FakeEngineClient) -> None:
    """Overload is no error of a painter's: the frame runs when there is room."""
    engine.refusals.extend([QueueFull("full"), QueueFull("full")])
    with greeted(api.url) as socket:
        socket.frame(1, seed=4)
        assert socket.result(1)["seed"] == 4
    assert len(engine.asked) == 3


@pytest.mark.parametrize(
    "error",
    [GenerationFailed("this picture could not be made"), EngineStarting("later", retry_after_s=5)],
)
def test_the_engine_s_failures_reach_the_painter(
    api: Api, engine: FakeEngineClient, error: GenerationFailed | EngineStarting
) -> None:
    """With their code, and the socket stays."""
    engine.refusals.append(error)
    with greeted(api.url) as socket:
        socket.frame(1)
        told = socket.error(error.code, frame_id=1)
        assert told.get("retryAfterS") == error.retry_after_s
        socket.frame(2)
        socket.result(2)


def test_the_unforeseen_is_told_without_its_inside(
    api: Api, engine: FakeEngineClient, capfd: pytest.CaptureFixture[str]
) -> None:
    """A bug costs one frame, and is found in the log by an id."""
    engine.refusals.append(ZeroDivisionError("secret inside"))  # type: ignore[arg-type]
    with greeted(api.url) as socket:
        socket.frame(1)
        told = socket.error("unexpected", frame_id=1)
        socket.frame(2)
        socket.result(2)
    assert "secret" not in json.dumps(told)
    logged = capfd.readouterr()
    assert told["error"].rpartition(" ")[2] in logged.out + logged.err


def test_a_painter_who_goes_frees_the_engine(api: Api, engine: FakeEngineClient) -> None:
    """When the socket closes in the middle, the job is aborted."""
    engine.is_open.clear()
    before = engine.num_aborted
    with greeted(api.url) as socket:
        socket.frame(1)
        wait_until(lambda: len(engine.asked) == 1, 5)
    wait_until(lambda: engine.num_aborted == before + 1, 5)
    engine.loop.call_soon_threadsafe(engine.is_open.set)


@pytest.mark.usefixtures("engine")
def test_pictures_are_those_that_were_sent(api: Api) -> None:
    """The fake engine makes the negative: each result is that of its own frame."""
    with greeted(api.url) as socket:
        for frame_id, colour in enumerate([(250, 0, 0), (0, 250, 0), (0, 0, 250)]):
            socket.frame(frame_id, file=picture(colour, "PNG"), outputFormat="png")
            [file] = socket.result(frame_id)["files"]
            with Image.open(io.BytesIO(file)) as image:
                assert np.asarray(image)[0, 0].tolist() == [255 - level for level in colour]


def test_a_key_s_limits_hold_for_frames(tmp_path: Path) -> None:
    """One over its rate is refused as over HTTP; a repeated picture asks nothing of the engine."""
    file = tmp_path / "keys"
    write_keys(file, [KeyRecord("rare", digest_of("rare"), "rate=1/h")])
    with running_server(keys_file=file) as url, greeted(url, "rare") as socket:
        socket.frame(1, seed=3)
        socket.result(1)
        socket.frame(2, seed=3)
        assert socket.result(2)["repeated"]
        socket.frame(3, seed=4)
        assert socket.error("rate-limited", frame_id=3)["retryAfterS"] in (3599, 3600)
