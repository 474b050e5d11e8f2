"""The engine's own loop: what it does when there is nothing to do."""

from __future__ import annotations

import socket
import threading

import pytest

from service.engine import worker
from service.protocol.connection import Connection
from service.protocol.messages import Abort
from tests.support.servers import wait_until


class Idle:
    """An engine without work; `aborted` are the jobs that it was told to abort.

    `num_cold` shapes are yet to become warm, one at each call.
    """

    def __init__(self, num_cold: int = 0) -> None:
        self.aborted: list[str] = []
        self.num_cold = num_cold

    @property
    def is_warming(self) -> bool:
        return self.num_cold > 0

    def advance_warming(self) -> None:
        self.num_cold -= 1

    def has_work(self) -> bool:
        return False

    def step(self) -> list[object]:
        return []

    def abort(self, job_id: str) -> None:
        self.aborted.append(job_id)


def test_an_idle_engine_gives_back_memory_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that it comes to rest; not again and again while it does, nor while it works."""
    given: list[int] = []
    engine = Idle()
    monkeypatch.setattr(worker, "REST_S", 0.02)
    monkeypatch.setattr(worker, "give_back", lambda: given.append(len(engine.aborted)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = worker.Worker(Connection(theirs))
        thread = threading.Thread(target=one._take_messages, args=[engine])
        thread.start()
        for number in range(3):
            wait_until(lambda: len(given) > number, 5)  # noqa: B023 - called at once
            thread.join(0.1)  # five times as long as a rest
            assert given == list(range(number + 1))
            one._inbox.put(Abort(f"job-{number}"))
        wait_until(lambda: len(engine.aborted) == 3, 5)
        one._inbox.put(None)
        thread.join(5)
    assert not thread.is_alive()


def test_an_idle_engine_becomes_warm_before_it_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to ask for a picture for what was compiled to be taken up."""
    cold: list[int] = []
    engine = Idle(num_cold=3)
    monkeypatch.setattr(worker, "WARMING_S", 0.01)
    monkeypatch.setattr(worker, "REST_S", 0.01)
    monkeypatch.setattr(worker, "give_back", lambda: cold.append(engine.num_cold))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = worker.Worker(Connection(theirs))
        thread = threading.Thread(target=one._take_messages, args=[engine])
        thread.start()
        wait_until(lambda: bool(cold), 5)
        one._inbox.put(None)
        thread.join(5)
    assert cold == [0]
