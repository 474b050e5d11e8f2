"""Pictures read in processes of their own: what one does to its process it does to itself."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from benchmarks.soak.picture_files import webp_bomb
from service.errors import ImageInvalid, RefineError, ValidationFailed
from service.front.images import decode_pool as decoding
from service.front.images.codec import decode_image
from service.front.images.decode_pool import Decoders, Isolation
from service.front.routes import refine as api_routes
from tests.support.api import PICTURE, ROUTES, Api
from tests.support.fakes import FakeEngineClient
from tests.support.servers import KEY, running_server


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def grow() -> int:
    return len(bytearray(2 << 30))


def spin() -> None:
    while True:
        pass


def hang() -> None:
    threading.Event().wait()  # burns nothing, so that no limit of processor time ends it


def slow() -> int:
    time.sleep(0.5)
    return 4


def refuse() -> None:
    raise ValidationFailed("steps must be more", path="$.steps")


async def outcome(decoders: Decoders, work: Callable[[], Any]) -> Any:
    try:
        return await decoders.run(work)
    except (RefineError, MemoryError) as error:
        return error


def test_a_process_that_ends_costs_its_own_work_alone() -> None:
    """Killed, out of memory, or out of time: that one is refused, and those beside it are not."""

    async def scenario() -> list[Any]:
        decoders = Decoders("process")
        try:
            works: list[Callable[[], Any]] = [
                partial(abs, -1),
                die,
                partial(abs, -2),
                grow,
                spin,
                refuse,
                partial(abs, -3),
            ]
            return await asyncio.gather(*(outcome(decoders, work) for work in works))
        finally:
            decoders.close()

    one, died, two, grown, spun, refused, three = asyncio.run(scenario())
    assert (one, two, three) == (1, 2, 3)
    assert isinstance(died, ImageInvalid)
    assert isinstance(grown, MemoryError)
    assert isinstance(spun, ImageInvalid)
    assert (refused.message, refused.path) == ("steps must be more", "$.steps")


@pytest.mark.slow
def test_a_decoder_that_hangs_is_ended_and_replaced() -> None:
    """By the clock, whatever it does; those beside it and after it have their pictures."""

    async def scenario() -> list[Any]:
        decoders = Decoders("process", wall_s=3.0)
        try:
            works: list[Callable[[], Any]] = [hang, slow, hang, slow, hang]
            return await asyncio.gather(*(outcome(decoders, work) for work in works))
        finally:
            decoders.close()

    hung, one, again, other, last = asyncio.run(scenario())
    assert all(isinstance(refusal, ImageInvalid) for refusal in (hung, again, last))
    assert (one, other) == (4, 4)


def test_who_hangs_is_told_and_the_service_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture whose decoder hangs is answered 400 in the common shape, the next one 200."""
    engine = FakeEngineClient()
    monkeypatch.setattr(decoding.Decoders.__init__, "__kwdefaults__", {"wall_s": 3.0})
    with (
        running_server(engine, api_keys=KEY, decode_isolation="process") as url,
        Api(url) as api,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(api_routes, "_read", hang_on)
        sentence = api.refused(api.refine(), 400, "image-invalid", "$")
        assert "too long" in sentence
        patch.undo()
        assert api.refine().status_code == 200


def hang_on(_body: bytes, _model: object) -> None:
    hang()


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_large_pictures_are_read_one_at_a_time(isolation: Isolation) -> None:
    """Small ones go beside a large one, and no second large one does."""

    async def scenario() -> list[tuple[int, int]]:
        decoders = Decoders(isolation)
        try:
            works = [partial(read_noting, webp_bomb(side)) for side in (2900, 2900, 16, 2900, 16)]
            return await asyncio.gather(*(decoders.run(work) for work in works))
        finally:
            decoders.close()

    spans = asyncio.run(scenario())
    large = sorted(span for span, side in zip(spans, (1, 1, 0, 1, 0), strict=True) if side)
    assert all(one[1] <= other[0] for one, other in pairwise(large))


def read_noting(file: bytes) -> tuple[int, int]:
    """Decode a picture; return when that began and ended."""
    began = time.monotonic_ns()
    decode_image(file, path="$.imageDataUrl")
    return began, time.monotonic_ns()


def test_the_wire_is_the_same_in_processes() -> None:
    """Pictures, masks and refusals come back as they do from threads."""
    engine = FakeEngineClient()
    with (
        running_server(engine, api_keys=KEY, decode_isolation="process") as url,
        Api(url) as api,
    ):
        assert api.refine().status_code == 200
        assert api.refine("/lcm-inpainting", maskDataUrl=PICTURE).status_code == 200
        api.refused(api.refine(imageDataUrl="x"), 400, "image-invalid", "$.imageDataUrl")
        api.refused(api.refine(steps=3), 400, "validation-failed", "$.steps")


@pytest.mark.parametrize("route", ROUTES)
def test_threads_are_the_default(route: str) -> None:
    """Without a setting no process is started for a picture."""
    engine = FakeEngineClient()
    before = set(multiprocessing.active_children())
    with running_server(engine) as url, Api(url) as api:
        assert api.refine(route).status_code == 200
        assert set(multiprocessing.active_children()) <= before
