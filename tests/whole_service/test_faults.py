"""Engines that end, hang, fall sick or talk nonsense: the front lives, and says what is true."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from service.engine_client.supervisor import WatchdogTimeouts
from service.protocol.messages import Heartbeat
from tests.support.faked import Faked, faked
from tests.support.servers import START_S, wait_until

HASTE = {
    "first_backoff_s": 0.2,
    "last_backoff_s": 0.4,
    "silence_s": 3.0,
    "step_s": 2.0,
    "step_factor": 1.0,
    "num_crashes": 100,
}


@pytest.fixture(scope="module")
def service() -> Iterator[Faked]:
    with faked(patience=HASTE) as service:
        yield service


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("segfault", "killed"),
        pytest.param("sick", "sick", marks=pytest.mark.slow),
        pytest.param("exit 0", "exited", marks=pytest.mark.slow),
        pytest.param("exit 3", "crashed", marks=pytest.mark.slow),
        pytest.param("garbage", "garbage", marks=pytest.mark.slow),
        pytest.param("hang", "hung-step", marks=pytest.mark.slow),
        pytest.param("stop", "hung-step", marks=pytest.mark.slow),
    ],
)
def test_however_an_engine_ends_another_one_serves(
    service: Faked, prompt: str, reason: str
) -> None:
    """Whose request ends two engines gets a 503, and everybody is served by the third one."""
    before = len(service.ends())
    answers: list[httpx.Response] = []
    poison = threading.Thread(target=lambda: answers.append(service.refine(prompt=prompt)))
    poison.start()
    wait_until(lambda: service.ends()[before:] == [reason] * 2, START_S)
    poison.join(60)
    assert answers[0].status_code == 503
    assert answers[0].json()["code"] == "engine-restarting"
    assert int(answers[0].headers["retry-after"]) >= 1
    assert httpx.get(service.url + "/health/live").status_code == 200
    wait_until(service.is_ready, START_S)
    assert service.refine().status_code == 200


def test_what_fails_alone_ends_no_engine(service: Faked) -> None:
    """A row that cannot be denoised, one of NaN and one without memory: an answer each, no end."""
    before = len(service.ends())
    answers = [service.refine(prompt=prompt) for prompt in ("fail", "nan", "oom")]
    told = [(answer.status_code, answer.json()["code"]) for answer in answers]
    assert told == [
        (500, "generation-failed"),
        (500, "generation-failed"),
        (503, "overloaded"),
    ]
    assert answers[2].headers["retry-after"]
    assert service.refine().status_code == 200
    assert len(service.ends()) == before


@pytest.mark.slow
@pytest.mark.alone
def test_a_sick_device_is_told_within_a_second() -> None:
    """Readiness goes at once, not when the process has ended; exit and a new engine follow."""
    patience = {**HASTE, "first_backoff_s": 3.0}
    with faked(patience=patience) as service:
        started = time.monotonic()
        poison = threading.Thread(target=lambda: service.refine(prompt="sick"))
        poison.start()
        wait_until(lambda: not service.is_ready(), 10)
        assert time.monotonic() - started < 2.0  # of which the request's own way is a part
        assert service.readiness()["state"] == "restarting"
        poison.join(60)


def test_a_loss_that_the_next_engine_comes_too_late_for_is_told_at_once() -> None:
    """With three seconds left and a load of five, a lost request gets its 503 now, not a 504."""
    with faked(patience={"first_backoff_s": 5.0}, FAKE_LOAD_S="2") as service:
        started = time.monotonic()
        answer = service.refine({"x-request-timeout-ms": "3000"}, prompt="exit 1")
        assert answer.status_code == 503
        assert time.monotonic() - started < 2.5
        assert int(answer.headers["retry-after"]) >= 5


@pytest.mark.slow
@pytest.mark.alone
def test_a_crash_loop_is_told_by_liveness() -> None:
    """Five ends in a short time: liveness says 503, so that an orchestrator acts."""
    patience = {"first_backoff_s": 0.1, "last_backoff_s": 0.2, "num_crashes": 3}
    with faked(patience=patience) as service:
        live = service.url + "/health/live"
        for number in range(3):
            assert httpx.get(live).status_code == 200
            wait_until(service.is_ready, START_S)
            service.engine().send_signal(signal.SIGKILL)
            wait_until(partial(_has_ended, service, number + 1), START_S)
        assert httpx.get(live).status_code == 503


def _has_ended(service: Faked, times: int) -> bool:
    return len(service.ends()) == times


def test_a_signal_while_the_engine_loads_ends_all_at_once() -> None:
    """SIGTERM in the middle of a long load: exit code 0 in seconds, and no engine is left."""
    service = Faked({}, {"FAKE_LOAD_S": "100"})
    try:
        wait_until(lambda: service.readiness()["state"] == "starting", START_S)
        wait_until(lambda: service.readiness()["phase"] == "loading", START_S)
        engine = service.engine()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
        wait_until(lambda: not engine.is_running(), 10)
    finally:
        service.close()


@pytest.mark.slow
@pytest.mark.alone
def test_neither_disk_nor_temporary_folder_is_needed() -> None:
    """Where no file can be written and there is no /tmp, pictures are made all the same."""
    with faked(TMPDIR="/nonexistent", FAKE_FILE_LIMIT="0") as service:
        assert service.refine().status_code == 200


SERVING = Heartbeat("serving")
PATIENCE = WatchdogTimeouts()


@pytest.mark.parametrize(
    ("heartbeat", "silent_s", "age_s", "verdict"),
    [
        (SERVING, 1.0, 1e6, None),
        (SERVING, 11.0, 1e6, "silent"),
        (Heartbeat("serving", step_running_s=9.0), 0.5, 1e6, None),
        (Heartbeat("serving", step_running_s=10.0), 0.5, 1e6, "hung-step"),
        (Heartbeat("serving", step_running_s=60.0, step_p99_s=4.0), 0.5, 1e6, None),
        (Heartbeat("serving", step_running_s=81.0, step_p99_s=4.0), 0.5, 1e6, "hung-step"),
        (Heartbeat("loading"), 60.0, 100.0, None),
        (Heartbeat("warming", step_running_s=600.0), 0.5, 700.0, None),
        (Heartbeat("warming"), 0.5, 1801.0, "hung-load"),
        (Heartbeat("compiling"), 60.0, 1e6, None),
        (Heartbeat("compiling"), 121.0, 1e6, "silent"),
        (Heartbeat("serving", adopting_s=100.0), 0.5, 1e6, None),
        (Heartbeat("serving", adopting_s=120.0), 0.5, 1e6, "hung-step"),
        (Heartbeat("loading"), 121.0, 200.0, "silent"),
        (None, 30.0, 30.0, None),
        (None, 121.0, 121.0, "silent"),
    ],
)
def test_the_watchdog_knows_a_hang_from_a_long_load(
    heartbeat: Heartbeat | None, silent_s: float, age_s: float, verdict: str | None
) -> None:
    """A step may take ten seconds or twenty times the usual; a load takes what it takes."""
    assert PATIENCE.verdict(heartbeat, silent_s=silent_s, age_s=age_s) == verdict
