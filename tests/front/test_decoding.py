"""Pictures read in processes of their own: what one does to its process it does to itself."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from service.errors import ImageInvalid, RefineError, ValidationFailed
from service.front.decoding import Decoders
from tests.fakes import FakeEngineClient
from tests.front.api import PICTURE, ROUTES, Api
from tests.servers import KEY, running_server


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def grow() -> int:
    return len(bytearray(2 << 30))


def spin() -> None:
    while True:
        pass


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


def test_the_wire_is_the_same_in_processes() -> None:
    """Pictures, masks and refusals come back as they do from threads."""
    engine = FakeEngineClient()
    with (
        running_server(engine, api_keys=KEY, decode_isolation="process") as url,
        Api(url, engine) as api,
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
    with running_server(engine) as url, Api(url, engine) as api:
        assert api.refine(route).status_code == 200
        assert set(multiprocessing.active_children()) == before
