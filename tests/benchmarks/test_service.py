"""The measurement of the service: its points and starts, whole rows, and runs that go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.core.rows import Results, read_rows
from benchmarks.service import __main__ as bench_service
from benchmarks.service import cold_start, load_points
from benchmarks.service.load_points import MIXED, UNIFORM, Loader, Point, points
from service.bench.load import Target
from tests.servers import running_server

Run = Callable[..., dict[str, Any]]
BESIDE = {"card", "driver", "device", "dtype", "threads", "torch", "commit"}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the benchmark; return its line of JSON."""

    def run(*words: str) -> dict[str, Any]:
        bench_service.main([f"--results={tmp_path}", f"--cache={tmp_path / 'cache'}", *words])
        told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return told

    return run


@pytest.fixture
def load(run: Run) -> Iterator[Run]:
    """The part that loads a server, at one with a fake engine."""
    with running_server(queue_per_key=100) as url:
        words = ["--parts=load", f"--url={url}", "--users", "1", "3", "--shares", "0.5", "1.1",
                 "--seconds=0.6", "--limit=300"]  # fmt: skip
        yield lambda *more: run(*words, *more)


def test_loads_are_measured_kept_and_gone_on_with(load: Run, tmp_path: Path) -> None:
    """Capacity first, then shares of it and the loops of users: whole rows, a plot, none twice."""
    names = ["3 users, mixed", "110% of capacity, mixed", "50% of capacity, mixed",
             "3 users, 4 steps at 512", "1 users, 4 steps at 512"]  # fmt: skip
    assert load("--budget=0") == {"rows": [], "left": names}
    assert load()["left"] == []
    rows = read_rows(tmp_path / "load.csv")
    wanted = {*load_points.COLUMNS, "url", "device", "dtype", "torch", "commit"}
    assert all(row[name] for row in rows for name in wanted)
    answers = {row["answers"] for row in rows if row["requests"] != "0"}  # of a very busy machine
    assert {answer.partition(" x ")[2] for answer in answers} == {"200"}
    capacity = float(rows[0]["pictures_per_s"])
    assert [float(row["rate"]) for row in rows[1:3]] == [
        pytest.approx(share * capacity, abs=0.01) for share in (1.1, 0.5)
    ]
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
    assert load()["rows"] == []


def test_shares_are_of_a_capacity_that_is_given(tmp_path: Path) -> None:
    """Lane B's, say, as the protocol wants; without any there is nothing to take a share of."""
    loader = Loader(Target(""), Results(tmp_path / "load.csv", load_points.KEY, {}), 1.0, 300)
    with pytest.raises(LookupError, match="no capacity was measured yet"):
        loader.capacity()
    given = Loader(Target(""), loader.results, 1.0, 300, capacity_per_s=12.0)
    assert given.capacity() == 12
    for users, rate in ((8, 5.0), (32, 7.0), (16, 9.0)):
        loader.results.add({**Point(MIXED, users=users).key, "pictures_per_s": rate})
    loader.results.add({**Point(UNIFORM, users=32).key, "pictures_per_s": 99.0})
    assert loader.capacity() == 7


def test_the_points_of_the_protocol_begin_with_the_most_telling() -> None:
    """Each point once: capacity, overload, and the loop of the most users come before the rest."""
    found = points([1, 2, 4, 8, 16, 32], [0.25, 0.5, 0.75, 0.9, 1.1])
    assert len(set(found)) == len(found) == 12
    assert found[:2] == [Point(MIXED, users=32), Point(MIXED, share=1.1)]
    assert [point.users for point in found[6:]] == [32, 1, 2, 4, 8, 16]


@pytest.mark.slow
def test_a_start_is_of_a_real_service(
    run: Run, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service is started for it, with the checkpoint that it is told: a whole row, and one."""
    monkeypatch.setenv("REFINE_NUM_THREADS", "1")
    words = [f"--checkpoint={tiny_checkpoint}", "--parts", "start"]
    assert run(*words, "--budget=0")["left"] == ["eager"]
    assert run(*words)["left"] == []
    [start] = read_rows(tmp_path / "start.csv")
    assert 0 < float(start["ready_s"]) < float(start["first_picture_s"])
    assert all(start[name] for name in (*cold_start.COLUMNS, *BESIDE))
    assert run(*words)["rows"] == []
