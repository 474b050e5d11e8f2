"""Two engines on one machine, as a user starts them, and the death of one under load."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.support.backends import NUM_ENGINES, Services, num_serving
from tests.support.servers import KEY, START_S, wait_until
from tests.whole_service.test_service import ROUTE, Served, body


@pytest.fixture
def two_devices(backend: str, services: Services) -> Served:
    """`instant-refine serve --devices cpu,cpu` on `pocket`, of `tests/support/backends.py`."""
    return services.named(backend)


def engine_pids(service: Served) -> list[int]:
    return [child.pid for child in psutil.Process(service.process.pid).children()]


def refine(service: Served, seed: int) -> httpx.Response:
    headers = {"Authorization": f"Bearer {KEY}"}
    fields = body(seed=seed, steps=4)
    return httpx.post(service.url + ROUTE, json=fields, headers=headers, timeout=240)


@pytest.mark.slow
@pytest.mark.alone
def test_a_killed_engine_loses_no_request(two_devices: Served) -> None:
    """Of two engines under load one is killed: every request is answered 200, and two serve again.

    Requests carry a seed each, and what ran on the dead engine gives the same picture on the other.
    """
    service = two_devices
    expected = [refine(service, seed).json() for seed in range(4)]
    victim = engine_pids(service)[0]
    with ThreadPoolExecutor(8) as users:
        answers = [users.submit(refine, service, n % 4) for n in range(24)]
        wait_until(lambda: sum(answer.done() for answer in answers) >= 4, 120)
        os.kill(victim, signal.SIGKILL)
        for number, answer in enumerate(answers):
            assert answer.result().status_code == 200
            assert answer.result().json() == expected[number % 4]
    wait_until(lambda: num_serving(service) == NUM_ENGINES, START_S)
    assert victim not in engine_pids(service)
