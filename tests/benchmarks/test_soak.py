"""The soak itself: it finds a leak in either process, and none where there is none."""

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

import benchmarks.soak.__main__
from benchmarks.soak.__main__ import FAKE, soak
from benchmarks.soak.load import Mix
from benchmarks.soak.report import COUNTS, Report, Sample, tell
from benchmarks.soak.slopes import bound_mb_per_hour, has_grown, slope
from tests.servers import wait_until

SECONDS = 36.0
LEAKS = [
    f"{process}-{kind}"
    for process in ("front", "engine")
    for kind in ("memory", "objects", *COUNTS)
]


@pytest.mark.slow
@pytest.mark.parametrize("leaks", [[], LEAKS], ids=["sound", "leaky"])
def test_a_leak_in_either_process_is_found(leaks: list[str], tmp_path: Path) -> None:
    """Two megabytes, a thread, a file and a task a second fail both; a run without them passes."""
    report = asyncio.run(
        soak(
            FAKE,
            {"FAKE_LEAK": " ".join(leaks), "PYTHONPATH": str(Path(__file__).parents[2])},
            seconds=SECONDS,
            every_s=0.5,
            pace_s=0.5,
            out=tmp_path,
        )
    )
    tell(report, tmp_path, tmp_path / "soak.csv")
    assert report.all_failures() == [f"{one.replace('-', ': ')} grew" for one in leaks]
    assert report.answers["good 200"] > 10
    assert (tmp_path / "soak.png").stat().st_size > 1000
    assert len((tmp_path / "soak.csv").read_text().splitlines()) == 3


def test_nobody_calls_while_the_callers_rest() -> None:
    """A rest begins when all that were under way have been answered, and ends for all at once."""

    async def rests() -> None:
        mix, running, seen = Mix("http://127.0.0.1:9", 0.001), 0, list[int]()

        async def call(_: object) -> None:
            nonlocal running
            running += 1
            await asyncio.sleep(0.01)
            seen.append(running)
            running -= 1

        async with httpx.AsyncClient() as http, asyncio.TaskGroup() as tasks:
            callers = [tasks.create_task(mix._again(call, http, 0.001)) for _ in range(3)]
            for _ in range(3):
                before = len(seen)
                await asyncio.sleep(0.1)
                async with mix.resting():
                    assert running == 0
                    count = len(seen)
                    await asyncio.sleep(0.05)
                    assert len(seen) == count > before
            assert max(seen) > 1, "two were never under way at once"
            for caller in callers:
                caller.cancel()

    asyncio.run(rests())


@pytest.mark.parametrize(("period_s", "rests"), [(0.02, True), (0.005, False)])
def test_callers_rest_once_in_a_bin(
    period_s: float, monkeypatch: pytest.MonkeyPatch, *, rests: bool
) -> None:
    """For as long as a sample needs, from the warm-up on; not where bins are too short for it."""
    monkeypatch.setattr(benchmarks.soak.__main__, "_LEAST_PERIOD_S", 0.01)
    monkeypatch.setattr(benchmarks.soak.__main__, "_REST_S", 0.004)

    async def count() -> int:
        mix, number = Mix("http://127.0.0.1:9", 1.0), 0

        @asynccontextmanager
        async def resting() -> AsyncIterator[None]:
            nonlocal number
            began = time.monotonic()
            yield
            assert time.monotonic() - began >= 0.006
            number += 1

        monkeypatch.setattr(mix, "resting", resting)
        task = asyncio.create_task(benchmarks.soak.__main__._rest(mix, period_s, every_s=0.002))
        await asyncio.sleep(0.1)
        assert number == 0, "it is not warm yet"
        mix.is_warm.set()
        await asyncio.sleep(0.5)
        task.cancel()
        return number

    assert 3 <= asyncio.run(count()) <= 25 if rests else asyncio.run(count()) == 0


@pytest.mark.slow
def test_a_run_that_is_cut_is_judged_and_has_failed(tmp_path: Path) -> None:
    """A signal ends it in order: the service is gone, and what was seen can be judged again."""
    where = [f"--out={tmp_path}", f"--results={tmp_path / 'soak.csv'}"]
    arguments = ["--model=fake", "--seconds=100", "--every=0.1", *where]
    command = [sys.executable, "-m", "benchmarks.soak", *arguments]
    samples = tmp_path / "samples.jsonl"
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        wait_until(lambda: samples.exists() and samples.read_text().count("\n") > 300, 250)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cut at" in json.loads(told)["failures"][0]
    judged = subprocess.run([*command, "--judge"], capture_output=True, check=False).stdout
    assert json.loads(judged)["processes"] == json.loads(told)["processes"]


@pytest.mark.parametrize("growth", [0.0, 3.0])
def test_a_slope_is_found_under_saw_teeth(growth: float) -> None:
    """Half an hour of saw-teeth of 20 MB: none is called growth, 3 MB/h below them is."""
    rng = random.Random(1)
    times = [5.0 * number for number in range(360)]
    values = [100 + growth * t / 3600 + (t % 55) * 20 / 55 + rng.uniform(0, 0.01) for t in times]
    fit = slope(times, values)
    assert fit.verdict(1.0) == ("grows" if growth else "holds")
    assert fit.low <= growth + 0.05
    assert fit.high >= growth - 0.05


def test_a_leak_of_small_objects_is_found_before_memory_shows_it() -> None:
    """3 MB/h of objects, of which a process has room for a while: its memory is as it was."""
    samples = [
        Sample(5.0 * number, 100.0, 360_000 + 40 * number + (number * 37) % 900, 9, 19, 6)
        for number in range(1, 361)
    ]
    assert Report(1800.0, {"front": samples}).all_failures() == ["front: objects grew"]


def test_a_jump_is_no_slope_but_in_the_middle() -> None:
    """6 MB at once, early or late, are none; half way the run cannot tell and does not pass."""
    times = [180.0 + 5.0 * number for number in range(324)]
    early, middle, late = (
        slope(times, [100.0 + 6 * (t > at) + 0.01 * (t % 7) for t in times])
        for at in (400, 990, 1700)
    )
    assert early.verdict(1.0) == late.verdict(1.0) == "holds"
    assert middle.verdict(1.0) == "open"
    assert middle.per_hour > 1.0


def test_a_short_run_has_a_wider_bound() -> None:
    """One megabyte an hour holds from half an hour on; at ten minutes nine are allowed."""
    assert [bound_mb_per_hour(seconds) for seconds in (600, 1800, 7200)] == [9.0, 1.0, 1.0]


def test_counts_that_swing_have_not_grown() -> None:
    """What comes down again is no growth; what stays above its first third is."""
    assert not has_grown([5, 9, 5, 9, 5, 9, 5, 9, 5])
    assert has_grown([5, 6, 5, 7, 8, 8, 9, 10, 11])
