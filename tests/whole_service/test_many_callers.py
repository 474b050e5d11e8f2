"""Many callers at once who go, whose engine is killed, whose service is told to end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import httpx
import pytest

from service.engine_client.local import LocalEngineClient
from service.engine_client.process import WorkerProcess
from service.front.app import create_app
from service.protocol.jobs import Progress
from service.protocol.messages import Heartbeat
from service.settings import Settings
from tests.support.fake_serve import ENGINE
from tests.support.faked import ROOT, ROUTE, body, faked
from tests.support.servers import START_S, running_app, wait_until

NUM_CALLERS = 16
NUM_ROUNDS, CROWD = 25, 4


class CountingClient(LocalEngineClient):
    """Counts the steps that callers' jobs were told of before they were done or given up."""

    num_steps = 0

    async def generate(self, *args: Any, on_progress: Any = None, **fields: Any) -> Any:
        def count(done: Progress) -> None:
            self.num_steps += 1
            if on_progress is not None:
                on_progress(done)

        return await super().generate(*args, on_progress=count, **fields)

    def beat(self) -> Heartbeat:
        return self.health.heartbeat or Heartbeat("none")

    def settled_calls(self) -> int:
        """Wait until nothing runs, as two heartbeats tell; return the number of UNet calls."""
        wait_until(lambda: self.health.num_pending == 0, 10)
        for _ in range(2):
            last = self.beat()
            wait_until(partial(lambda last: self.beat() is not last, last), 10)
        wait_until(lambda: (self.beat().num_running, self.beat().num_waiting) == (0, 0), 10)
        return self.beat().num_unet_calls


@pytest.mark.slow
@pytest.mark.alone
def test_a_hundred_who_go_cost_a_call_each_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queued, in steps or near the end: slots are free a call later, and no task is left."""
    monkeypatch.setenv("FAKE_STEP_S", "0.03")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    settings = Settings()
    client = CountingClient(settings.engines()[0], spawn=partial(WorkerProcess, module=ENGINE))
    with running_app(create_app(settings, client)) as (url, server):
        wait_until(lambda: client.health.state == "serving", START_S)
        assert httpx.post(url + ROUTE, json=body(), timeout=60).status_code == 200
        rng, calls = random.Random(6), client.settled_calls()
        base = num_tasks(server._loop)
        aborted_before = client.beat().num_aborted
        for _ in range(NUM_ROUNDS):
            client.num_steps = 0
            go_at_random(url, rng)
            before, calls = calls, client.settled_calls()
            # One slot, so a call is one row's step. A step may be done and not yet told of.
            assert calls - before <= client.num_steps + CROWD
        assert client.beat().num_aborted - aborted_before >= NUM_ROUNDS
        wait_until(lambda: num_tasks(server._loop) <= base, 10)


def go_at_random(url: str, rng: random.Random) -> None:
    """Ask for some pictures at once, and close each connection at some moment."""
    sockets = [asked(url, steps=8, strength=1.0) for _ in range(CROWD)]
    for connection in rng.sample(sockets, CROWD):
        time.sleep(rng.uniform(0, 0.25))
        connection.close()


def asked(url: str, **fields: Any) -> socket.socket:
    """Return a connection on which a picture was asked for."""
    content = json.dumps(body(**fields)).encode()
    host, port = url.removeprefix("http://").split(":")
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def answered(connection: socket.socket) -> float:
    """Wait for the answer and return when it began."""
    with connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        return time.monotonic()


@pytest.mark.slow
@pytest.mark.alone
def test_who_goes_leaves_the_slot_at_once() -> None:
    """Whoever waits behind a long request is served as if alone, once that one's caller has gone.

    What it takes longer than alone is the step under way and the time until the slot was free.
    """
    rng, waits = random.Random(5), []
    with faked(FAKE_STEP_S="0.03") as service:
        alone = [
            _seconds_from(time.monotonic(), asked(service.url, strength=0.3)) for _ in range(20)
        ]
        for _ in range(100):
            goes, stays = (
                asked(service.url, steps=16, strength=1.0),
                asked(service.url, strength=0.3),
            )
            time.sleep(rng.uniform(0.02, 0.15))
            goes.close()
            waits.append(_seconds_from(time.monotonic(), stays) - sorted(alone)[10])
    waits.sort()
    print(f"waited p50 {waits[50]:.3f} s, p95 {waits[95]:.3f} s, a step is 0.030 s")
    assert waits[95] < 0.25, "the steps left were at least 0.33 s"


def _seconds_from(began: float, connection: socket.socket) -> float:
    return answered(connection) - began


def num_tasks(loop: asyncio.AbstractEventLoop) -> int:
    async def count() -> int:
        return len(asyncio.all_tasks()) - 1

    return asyncio.run_coroutine_threadsafe(count(), loop).result(10)


@dataclass(frozen=True)
class Call:
    """A request and what became of it; `status` is 0 where the connection failed."""

    began: float
    ended: float
    status: int
    code: str
    retry_after: str


class Service(Protocol):
    """What can be asked for a picture."""

    def refine(self) -> httpx.Response: ...


@contextmanager
def callers(service: Service, number: int = NUM_CALLERS) -> Iterator[list[Call]]:
    """Ask from many threads, again and again; afterwards each of them has ended."""
    calls: list[Call] = []
    ends = threading.Event()

    def ask() -> None:
        while not ends.is_set():
            calls.append(call(service))
            if calls[-1].status != 200:
                time.sleep(0.2)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        ends.set()
        for thread in threads:
            thread.join(90)
    assert not any(thread.is_alive() for thread in threads), "a request has no answer"


def call(service: Service) -> Call:
    began = time.monotonic()
    try:
        answer = service.refine()
    except httpx.TransportError:
        return Call(began, time.monotonic(), 0, "", "")
    code = "" if answer.status_code == 200 else answer.json()["code"]
    ended = time.monotonic()
    return Call(began, ended, answer.status_code, code, answer.headers.get("retry-after", ""))


@pytest.mark.slow
@pytest.mark.alone
def test_a_kill_under_load_loses_nobody() -> None:
    """Each caller is answered: 200, or 503 with a time; and soon there are pictures again."""
    started = time.monotonic()
    with faked(FAKE_STEP_S="0.02", FAKE_LOAD_S="1", REFINE_MAX_BATCH="4") as service:
        load_s = time.monotonic() - started
        with callers(service) as calls:
            wait_until(lambda: len(calls) >= 2 * NUM_CALLERS, START_S)
            killed = time.monotonic()
            os.kill(service.engine().pid, signal.SIGKILL)
            wait_until(lambda: not service.is_ready(), 10)
            wait_until(service.is_ready, START_S)
            back_s = time.monotonic() - killed
            served = len(calls)
            wait_until(lambda: len(calls) >= served + 2 * NUM_CALLERS, START_S)
        assert service.process.poll() is None
    caught = [one for one in calls if one.began < killed < one.ended]
    print(f"load {load_s:.1f} s, back {back_s:.1f} s; {Counter(one.status for one in calls)}")
    print(f"in flight at the kill: {Counter(one.status for one in caught)}")
    assert {one.status for one in calls} <= {200, 503}
    assert all(int(one.retry_after) >= 1 for one in calls if one.status == 503)
    assert len(caught) >= NUM_CALLERS // 2
    assert back_s <= load_s + 5


@pytest.mark.slow
@pytest.mark.alone
def test_a_drain_under_load_answers_whom_it_accepted() -> None:
    """After SIGTERM: 200 for who was accepted; `draining` or no connection for who comes later."""
    with faked(FAKE_STEP_S="0.05", REFINE_MAX_BATCH="4") as service:
        with callers(service) as calls:
            wait_until(lambda: len(calls) >= 2 * NUM_CALLERS, START_S)
            told = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(60) == 0
        caught = [one for one in calls if one.began < told < one.ended]
    print(f"in flight at SIGTERM: {Counter((one.status, one.code) for one in caught)}")
    assert {(one.status, one.code) for one in calls} <= {(200, ""), (503, "draining"), (0, "")}
    # A request whose body is still under way at the signal has not been accepted.
    assert all(one.status == 200 for one in caught if one.began < told - 0.5)
    assert all(one.began > told - 0.5 for one in calls if one.status != 200)
    assert Counter(one.status for one in caught)[200] >= NUM_CALLERS // 2
