"""Two engines on one machine, as a user starts them, and the death of one under load."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.servers import START_S, wait_until
from tests.test_service import Served, served


def engine_pids(service: Served) -> list[int]:
    return [child.pid for child in psutil.Process(service.process.pid).children()]


def num_serving(service: Served) -> int:
    states = [engine["state"] for engine in service.readiness().json()["engines"]]
    return states.count("serving")


@pytest.mark.slow
def test_a_killed_engine_loses_no_request(tiny_checkpoint: Path) -> None:
    """Of two engines under load one is killed: every request is answered 200, and two serve again.

    Requests carry a seed each, and what ran on the dead engine gives the same picture on the other.
    """
    with served(tiny_checkpoint, REFINE_DEVICE="cpu,cpu") as service:
        wait_until(lambda: num_serving(service) == 2, START_S)
        expected = [service.refine(seed=seed, steps=4).json() for seed in range(4)]
        victim = engine_pids(service)[0]
        with ThreadPoolExecutor(8) as users:
            answers = [users.submit(service.refine, seed=n % 4, steps=4) for n in range(48)]
            wait_until(lambda: sum(answer.done() for answer in answers) >= 8, 60)
            os.kill(victim, signal.SIGKILL)
            for number, answer in enumerate(answers):
                assert answer.result().status_code == 200
                assert answer.result().json() == expected[number % 4]
        wait_until(lambda: num_serving(service) == 2, START_S)
        assert victim not in engine_pids(service)
