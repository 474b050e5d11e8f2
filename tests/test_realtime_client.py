"""The Python client of the realtime door, against a real server with a fake engine."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosed

from service.realtime_client import Answer, RealtimeClient
from tests.support.fakes import FakeEngineClient
from tests.support.servers import KEY, running_server
from tests.support.sockets import PICTURE

WAIT_S = 30


async def until_answered(live: RealtimeClient, frame_id: int) -> list[Answer]:
    """Collect answers up to the one of a frame."""
    answers: list[Answer] = []
    async with asyncio.timeout(WAIT_S):
        async for answer in live:
            answers.append(answer)
            if answer.id == frame_id:
                return answers
    raise AssertionError("the answers ended")


def test_a_burst_ends_in_the_picture_of_its_last_frame() -> None:
    """Every frame gets one answer, results rise, and the last frame is a result."""

    async def draw(url: str) -> None:
        async with RealtimeClient(url, key=KEY) as live:
            ids = [live.send(PICTURE, prompt="a boat", seed=seed) for seed in range(30)]
            answers = await until_answered(live, ids[-1])
            results = [answer.id for answer in answers if answer.kind == "result"]
            assert sorted(answer.id or 0 for answer in answers) == ids
            assert results == sorted(results, key=lambda result: result or 0)
            assert (answers[-1].kind, answers[-1].content["seed"]) == ("result", 29)
            assert len(answers[-1].files) == 1
            assert live.status["meanMs"] > 0

    with running_server(api_keys=KEY) as url:
        asyncio.run(draw(url))


def test_a_refusal_is_an_answer_and_a_wrong_key_is_raised() -> None:
    """What is wrong with a frame costs that frame; what is wrong with the key ends it."""

    async def draw(url: str) -> None:
        async with RealtimeClient(url, key=KEY) as live:
            [answer] = await until_answered(live, live.send(PICTURE, prompt="a boat", steps=99))
            assert (answer.kind, answer.content["path"]) == ("error", "$.steps")
        async with RealtimeClient(url, key="wrong") as live:
            with pytest.raises(ConnectionClosed) as closed:
                await until_answered(live, 1)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401

    with running_server(api_keys=KEY) as url:
        asyncio.run(draw(url))


def test_the_newest_frame_survives_a_restart_of_the_service() -> None:
    """The server ends in the middle of a frame; the next one on its port answers the newest."""

    async def draw(url: str, engine: FakeEngineClient, ended: threading.Event) -> list[Answer]:
        async with RealtimeClient(url) as live:
            live.send(PICTURE, prompt="a boat")
            while not engine.asked:
                await asyncio.sleep(0.05)
            newest = live.send(PICTURE, prompt="a boat", seed=7)
            ended.set()
            return await until_answered(live, newest)

    port = free_port()
    engine, ended = FakeEngineClient(), threading.Event()
    engine.is_open.clear()
    with ThreadPoolExecutor(1) as pool:
        with running_server(engine, port=port) as url:
            drawn = pool.submit(lambda: asyncio.run(draw(url, engine, ended)))
            assert ended.wait(WAIT_S)
        with running_server(port=port):
            answers = drawn.result(WAIT_S)
    assert [(answer.kind, answer.id) for answer in answers] == [("replaced", 1), ("result", 2)]
    assert answers[-1].content["seed"] == 7


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
