"""The ladder and the batch sweep: on tiny checkpoints, with the smallest arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.core.rows import read_rows
from benchmarks.core.setup import Place
from benchmarks.engine import __main__ as bench_engine
from benchmarks.engine import batch_sweep, ladder
from benchmarks.engine import ladder_run as climb
from benchmarks.engine.ladder import RUNGS, Rung, most_telling_first, rungs_of
from benchmarks.lanes.base import PartedLane
from tests.checkpoints import write_taesd


def run(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, results: Path, *words: str
) -> dict[str, Any]:
    """Run the benchmark in small; return its line of JSON."""
    small = ["--sizes", "64", "--rounds", "2", "--batches", "1", "2", "--scale", "0.01",
             "--rungs", "our loop", "channels-last"]  # fmt: skip
    places = [f"--checkpoint={checkpoint}", f"--results={results}", f"--cache={results}"]
    bench_engine.main([*places, *small, *words])
    told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return told


def test_it_measures_keeps_and_goes_on(
    capsys: pytest.CaptureFixture[str], kl_checkpoint: Path, tmp_path: Path
) -> None:
    """Without time nothing is measured; then all, with whole rows and plots; then nothing again."""
    cut = run(capsys, kl_checkpoint, tmp_path, "--budget=0")
    assert cut["rows"] == []
    assert cut["left"] == [
        *(f"{name} at 64, 4 steps" for name in ("diffusers", "our loop", "channels-last")),
        *(f"{part} of {rows} at 64" for part in ("unet", "encode", "decode") for rows in (1, 2)),
    ]
    told = run(capsys, kl_checkpoint, tmp_path)
    assert told["left"] == []
    rungs, batches = (read_rows(tmp_path / f"{name}.csv") for name in ("engine", "batch"))
    assert [row["rung"] for row in rungs] == ["diffusers", "our loop", "channels-last"]
    assert [row["batch"] for row in batches] == 3 * ["1", "2"]
    for rows, columns in ((rungs, climb.COLUMNS), (batches, batch_sweep.COLUMNS)):
        wanted = {*columns, "card", "driver", "torch", "dtype", "threads", "commit"}
        assert all(row[name] for row in rows for name in wanted)
    assert {row["unet_calls"] for row in rungs} == {"4"}
    assert rungs[0]["time_against_first"] == "1.0"
    for name in ("engine.png", "batch.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert run(capsys, kl_checkpoint, tmp_path)["rows"] == []
    anew = run(capsys, kl_checkpoint, tmp_path, "--batches", "--anew")
    assert [row["rung"] for row in anew["rows"]] == ["diffusers", "our loop", "channels-last"]


def test_a_rung_that_cannot_be_made_costs_no_other_its_row(
    capsys: pytest.CaptureFixture[str],
    kl_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is told by the exit code, and has no row."""

    def broken(*_: object) -> PartedLane:
        raise RuntimeError("it could not be compiled")

    monkeypatch.setattr(ladder, "RUNGS", (*ladder.RUNGS[:2], Rung("compiled", "more", broken)))
    with pytest.raises(SystemExit, match="it could not be compiled"):
        run(capsys, kl_checkpoint, tmp_path, "--batches", "--rungs", "our loop", "compiled")
    assert [row["rung"] for row in read_rows(tmp_path / "engine.csv")] == ["diffusers", "our loop"]


def test_each_rung_has_a_name_of_its_own() -> None:
    """Rows are found again by the name of their rung."""
    names = [rung.name for rung in RUNGS]
    assert len(set(names)) == len(names)
    with pytest.raises(ValueError, match="no rung is called stairs"):
        rungs_of(Place(Path()), ["stairs"])


def test_a_place_has_the_rungs_that_it_can_climb(kl_checkpoint: Path, tmp_path: Path) -> None:
    """No CUDA graphs without CUDA, no TAESD without one, none that is tuned where the place is not.

    The ends of the ladder are told first.
    """
    names = [rung.name for rung in rungs_of(Place(kl_checkpoint))]
    assert names == ["diffusers", "our loop", "channels-last", "compiled", "tuned"]
    untuned = [rung.name for rung in rungs_of(Place(kl_checkpoint, tune="off"))]
    assert untuned == names[:-1]
    place = Place(kl_checkpoint, device="cuda", tiny=write_taesd(tmp_path))
    rungs = most_telling_first(rungs_of(place))
    assert [rung.name for rung in rungs] == [
        "diffusers", "TAESD", "tuned", "CUDA graphs", "compiled", "channels-last", "our loop",
    ]  # fmt: skip
