"""The soak itself: it finds a leak in either process, and none where there is none."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from benchmarks.slopes import bound_mb_per_hour, has_grown, slope
from benchmarks.soak import Report, soak, tell

SECONDS = 36.0
FAKE = (sys.executable, "-m", "tests.fake_serve")


@pytest.mark.slow
@pytest.mark.parametrize("leaky", ["", "front engine"])
def test_a_leak_in_either_process_is_found(leaky: str, tmp_path: Path) -> None:
    """Two megabytes a second fail each process that leaks them; the same run without passes."""
    root = str(Path(__file__).parent.parent)
    report: Report = asyncio.run(
        soak(
            FAKE,
            {"FAKE_LEAK": leaky, "PYTHONPATH": root},
            seconds=SECONDS,
            every_s=0.5,
            pace_s=0.5,
            out=tmp_path,
        )
    )
    tell(report, tmp_path)
    assert report.all_failures() == [f"{name}: memory grew" for name in leaky.split()]
    assert report.answers["good 200"] > 10
    assert (tmp_path / "soak.png").stat().st_size > 1000


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


def test_a_short_run_has_a_wider_bound() -> None:
    """One megabyte an hour holds from half an hour on; at ten minutes nine are allowed."""
    assert [bound_mb_per_hour(seconds) for seconds in (600, 1800, 7200)] == [9.0, 1.0, 1.0]


def test_counts_that_swing_have_not_grown() -> None:
    """What comes down again is no growth; what stays above its first third is."""
    assert not has_grown([5, 9, 5, 9, 5, 9, 5, 9, 5])
    assert has_grown([5, 6, 5, 7, 8, 8, 9, 10, 11])
