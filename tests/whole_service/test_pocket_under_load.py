"""The bundled model under load: its engine is killed, its service is told to end."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import httpx
import psutil
import pytest

from tests.support.servers import START_S, wait_until
from tests.whole_service.test_many_callers import Call, callers
from tests.whole_service.test_service import Served, served

NUM_CALLERS = 4
# Nothing is to fail by a deadline on a machine that does other work.
PATIENT = {"REFINE_DEADLINE_S": "200", "REFINE_DRAIN_TIMEOUT_S": "120"}
OVERHEAD_S = 5.0
BODY_S = 0.5  # more than it takes to bring a request in


class PocketService:
    """The service with the bundled checkpoint, asked for its cheapest picture."""

    def __init__(self, service: Served) -> None:
        self._service = service

    def refine(self) -> httpx.Response:
        return self._service.refine(steps=4)


def in_flight(calls: list[Call], moment: float) -> list[Call]:
    return [one for one in calls if one.began < moment < one.ended]


def age_s(pid: int) -> float:
    """How long ago a process was started."""
    return time.time() - float(psutil.Process(pid).create_time())


@pytest.mark.slow
@pytest.mark.alone
def test_a_kill_under_load_loses_no_picture() -> None:
    """503 `engine-restarting` for who asks then, and pictures again within load time + 5 s.

    Whoever waited for a picture at the kill has it after one retry. The load time is that of the
    engine that was killed or of the next one, whichever took longer: other work shares the cores.
    """
    with served("pocket", **PATIENT) as service:
        load_s = age_s(service.engine_pid())
        with callers(PocketService(service), NUM_CALLERS) as calls:
            wait_until(lambda: len(calls) >= NUM_CALLERS, START_S)
            killed = time.monotonic()
            os.kill(service.engine_pid(), signal.SIGKILL)
            wait_until(lambda: not service.is_ready(), 10)
            refused = service.refine()
            wait_until(service.is_ready, START_S)
            back_s = time.monotonic() - killed
            load_s = max(load_s, age_s(service.engine_pid()))
            served_before = len(calls)
            wait_until(lambda: len(calls) >= served_before + NUM_CALLERS, START_S)
        assert service.process.poll() is None
    caught = in_flight(calls, killed)
    print(f"load {load_s:.1f} s, back {back_s:.1f} s; {Counter(one.status for one in calls)}")
    print(f"in flight at the kill: {Counter(one.status for one in caught)}")
    assert refused.status_code == 503
    assert refused.json()["code"] == "engine-restarting"
    assert int(refused.headers["retry-after"]) >= 1
    # A request whose body was still under way at the kill may come to an engine known to be dead.
    waited = [one for one in caught if one.began < killed - BODY_S]
    assert waited
    assert all(one.status == 200 for one in waited)
    assert Counter(one.status for one in caught)[200] >= NUM_CALLERS // 2
    assert {one.status for one in calls} <= {200, 503}
    assert back_s <= load_s + OVERHEAD_S


@pytest.mark.slow
@pytest.mark.alone
def test_an_end_under_load_answers_whom_it_accepted() -> None:
    """After SIGTERM who was accepted has a picture, who comes is told `draining`; the code is 0."""
    with (
        served("pocket", **PATIENT) as service,
        callers(PocketService(service), NUM_CALLERS) as calls,
    ):
        wait_until(lambda: len(calls) >= NUM_CALLERS, START_S)
        told = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(150) == 0
    caught = in_flight(calls, told)
    print(f"in flight at SIGTERM: {Counter((one.status, one.code) for one in caught)}")
    assert {(one.status, one.code) for one in calls} <= {(200, ""), (503, "draining"), (0, "")}
    # A request whose body is still under way at the signal has not been accepted.
    assert all(one.status == 200 for one in caught if one.began < told - BODY_S)
    assert all(one.began > told - BODY_S for one in calls if one.status != 200)
    assert Counter(one.status for one in caught)[200] >= NUM_CALLERS // 2
