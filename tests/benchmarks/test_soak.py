"""The soak finds a leak in either process, and none where there is none."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.soak import __main__ as command
from benchmarks.soak.__main__ import soak
from benchmarks.soak.load import MixedLoad
from benchmarks.soak.report import COUNTS, Report, Sample, publish
from benchmarks.soak.slopes import bound_mb_per_hour, has_grown, slope
from tests.support.servers import wait_until

FAKE_SERVICE = "tests.support.fake_serve"
SECONDS = 36.0
LEAKS = [
    f"{process}-{kind}"
    for process in ("front", "engine")
    for kind in ("memory", "objects", *COUNTS)
]


@pytest.mark.slow
@pytest.mark.parametrize("leaks", [[], LEAKS], ids=["sound", "leaky"])
def test_leak_in_either_process(leaks: list[str], tmp_path: Path) -> None:
    """Two megabytes, a thread, a file and a task a second fail both processes; no leak passes."""
    report = asyncio.run(
        soak(
            (sys.executable, "-m", FAKE_SERVICE),
            {"FAKE_LEAK": " ".join(leaks)},
            seconds=SECONDS,
            every_s=0.5,
            pace_s=0.5,
            out=tmp_path,
        )
    )
    publish(report, tmp_path, tmp_path / "soak.csv")
    assert report.all_failures() == [f"{one.replace('-', ': ')} grew" for one in leaks]
    assert report.answers["good 200"] > 10
    assert (tmp_path / "soak.png").stat().st_size > 1000
    assert len((tmp_path / "soak.csv").read_text().splitlines()) == 3


def test_pause() -> None:
    """A pause begins when all calls are answered, and no call starts during it."""

    async def pauses() -> None:
        mix, running, seen = MixedLoad("http://127.0.0.1:9", 0.001), 0, list[int]()

        async def call(_: object) -> None:
            nonlocal running
            running += 1
            await asyncio.sleep(0.01)
            seen.append(running)
            running -= 1

        async with httpx.AsyncClient() as http, asyncio.TaskGroup() as tasks:
            callers = [tasks.create_task(mix.repeat(call, http, 0.001)) for _ in range(3)]
            for _ in range(3):
                before = len(seen)
                await asyncio.sleep(0.1)
                async with mix.paused():
                    assert running == 0
                    count = len(seen)
                    await asyncio.sleep(0.05)
                    assert len(seen) == count > before
            assert max(seen) > 1, "two calls never ran at once"
            for caller in callers:
                caller.cancel()

    asyncio.run(pauses())


@pytest.mark.parametrize(("period_s", "pauses"), [(0.02, True), (0.005, False)])
def test_pause_in_each_bin(
    period_s: float, monkeypatch: pytest.MonkeyPatch, *, pauses: bool
) -> None:
    """After the warm-up the load pauses once in a bin, unless bins are too short for it."""
    monkeypatch.setattr(command, "_MIN_PERIOD_S", 0.01)
    monkeypatch.setattr(command, "_PAUSE_S", 0.004)

    async def count() -> int:
        mix, number = MixedLoad("http://127.0.0.1:9", 1.0), 0

        @asynccontextmanager
        async def paused() -> AsyncIterator[None]:
            nonlocal number
            began = time.monotonic()
            yield
            assert time.monotonic() - began >= 0.006
            number += 1

        monkeypatch.setattr(mix, "paused", paused)
        task = asyncio.create_task(command._pause(mix, period_s, every_s=0.002))
        await asyncio.sleep(0.1)
        assert number == 0, "the load is not warm yet"
        mix.is_warm.set()
        await asyncio.sleep(0.5)
        task.cancel()
        return number

    assert 3 <= asyncio.run(count()) <= 25 if pauses else asyncio.run(count()) == 0


@pytest.mark.slow
def test_interrupted_run(tmp_path: Path) -> None:
    """A signal ends the run as failed, its service stops, and its samples can be judged again."""
    where = [f"--out={tmp_path}", f"--results={tmp_path / 'soak.csv'}"]
    arguments = [
        f"--serve={sys.executable} -m {FAKE_SERVICE}",
        "--seconds=100",
        "--every=0.1",
        *where,
    ]
    command = [sys.executable, "-m", "benchmarks.soak", *arguments]
    samples = tmp_path / "samples.jsonl"
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        wait_until(lambda: samples.exists() and samples.read_text().count("\n") > 300, 250)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cut at" in json.loads(output)["failures"][0]
    judged = subprocess.run([*command, "--judge"], capture_output=True, check=False).stdout
    assert json.loads(judged)["processes"] == json.loads(output)["processes"]


@pytest.mark.parametrize("growth", [0.0, 3.0])
def test_slope_under_saw_teeth(growth: float) -> None:
    """Saw-teeth of 20 MB over half an hour are no growth; 3 MB/h below them is."""
    rng = random.Random(1)
    times = [5.0 * number for number in range(360)]
    values = [100 + growth * t / 3600 + (t % 55) * 20 / 55 + rng.uniform(0, 0.01) for t in times]
    fit = slope(times, values)
    assert fit.verdict(1.0) == ("grows" if growth else "holds")
    assert fit.low <= growth + 0.05
    assert fit.high >= growth - 0.05


def test_leak_of_small_objects() -> None:
    """3 MB/h of objects are found while the memory of the process is still the same."""
    samples = [
        Sample(5.0 * number, 100.0, 360_000 + 40 * number + (number * 37) % 900, 9, 19, 6)
        for number in range(1, 361)
    ]
    assert Report(1800.0, {"front": samples}).all_failures() == ["front: objects grew"]


def test_jump() -> None:
    """A jump of 6 MB early or late is no growth; half way the verdict is open and does not pass."""
    times = [180.0 + 5.0 * number for number in range(324)]
    early, middle, late = (
        slope(times, [100.0 + 6 * (t > at) + 0.01 * (t % 7) for t in times])
        for at in (400, 990, 1700)
    )
    assert early.verdict(1.0) == late.verdict(1.0) == "holds"
    assert middle.verdict(1.0) == "open"
    assert middle.per_hour > 1.0


def test_bound_of_short_run() -> None:
    """The bound is 1 MB/h from half an hour on, and 9 MB/h at ten minutes."""
    assert [bound_mb_per_hour(seconds) for seconds in (600, 1800, 7200)] == [9.0, 1.0, 1.0]


def test_counts() -> None:
    """Counts that come down again have not grown; those that stay above their first third have."""
    assert not has_grown([5, 9, 5, 9, 5, 9, 5, 9, 5])
    assert has_grown([5, 6, 5, 7, 8, 8, 9, 10, 11])
