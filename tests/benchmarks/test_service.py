"""The service's benchmark: load points, capacity and starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks.core.rows import Results, read_rows
from benchmarks.service.__main__ import main
from benchmarks.service.cold_start import ColdStart
from benchmarks.service.load_points import MIXED, UNIFORM, LoadPoints, closed_loop
from tests.support.servers import running_server

Run = Callable[..., dict[str, Any]]
CONDITIONS = {"card", "driver", "device", "dtype", "threads", "torch", "commit"}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command; return its line of JSON."""

    def run(*words: str) -> dict[str, Any]:
        main([f"--results={tmp_path}", f"--cache={tmp_path / 'cache'}", *words])
        summary: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return summary

    return run


@pytest.fixture
def load(run: Run) -> Iterator[Run]:
    """Load a server with a fake engine."""
    with running_server(queue_per_key=100) as url:
        words = ["--parts=load", f"--url={url}", "--users", "1", "3", "--shares", "0.5", "1.1",
                 "--seconds=0.6", "--limit=300"]  # fmt: skip
        yield lambda *more: run(*words, *more)


def test_loads_and_resume(load: Run, tmp_path: Path) -> None:
    """Capacity first, then shares of it, then users: whole rows, a plot, and none twice."""
    assert load("--budget=0")["left"] == [
        "loop closed, trace mixed, users 3, share 0.0",
        "loop open, trace mixed, users 0, share 1.1",
        "loop open, trace mixed, users 0, share 0.5",
        "loop closed, trace 4 steps at 512, users 3, share 0.0",
        "loop closed, trace 4 steps at 512, users 1, share 0.0",
    ]
    assert load()["left"] == []
    rows = read_rows(tmp_path / "load.csv")
    wanted = {*LoadPoints.columns, "url", "device", "dtype", "torch", "commit"}
    assert all(row[name] for row in rows for name in wanted)
    answers = {row["answers"] for row in rows if row["requests"] != "0"}  # none if it is very busy
    assert {answer.partition(" x ")[2] for answer in answers} == {"200"}
    capacity = float(rows[0]["pictures_per_s"])
    assert [float(row["rate"]) for row in rows[1:3]] == [
        pytest.approx(share * capacity, abs=0.01) for share in (1.1, 0.5)
    ]
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
    assert load()["rows"] == []


def load_points(folder: Path, capacity_per_s: float = 0.0) -> LoadPoints:
    points = LoadPoints(
        lambda: nullcontext(""), {}, users=[32], shares=[1.1], seconds=1.0, limit_ms=300,
        capacity_per_s=capacity_per_s,
    )  # fmt: skip
    points.results = Results(folder / "load.csv", points.key, {})
    return points


def test_capacity(tmp_path: Path) -> None:
    """Capacity is given, or that of the most users on mixed requests; without it, LookupError."""
    points = load_points(tmp_path)
    with pytest.raises(LookupError, match="no capacity was measured"):
        points.capacity()
    assert load_points(tmp_path, capacity_per_s=12.0).capacity() == 12
    for users, rate in ((8, 5.0), (32, 7.0), (16, 9.0)):
        points.results.add({**closed_loop(MIXED, users), "pictures_per_s": rate})
    points.results.add({**closed_loop(UNIFORM, 32), "pictures_per_s": 99.0})
    assert points.capacity() == 7


@pytest.mark.slow
def test_cold_start(
    run: Run, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service is started with the given checkpoint: one whole row."""
    monkeypatch.setenv("REFINE_NUM_THREADS", "1")
    words = [f"--checkpoint={tiny_checkpoint}", "--parts", "start"]
    assert run(*words, "--budget=0")["left"] == ["start eager"]
    assert run(*words)["left"] == []
    [start] = read_rows(tmp_path / "start.csv")
    assert 0 < float(start["ready_s"]) < float(start["first_picture_s"])
    assert all(start[name] for name in (*ColdStart.columns, *CONDITIONS))
    assert run(*words)["rows"] == []
