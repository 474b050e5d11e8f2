"""The ladder and the batch sweep, on tiny checkpoints with the smallest arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.core.rows import read_rows
from benchmarks.core.setup import Setup
from benchmarks.engine import ladder
from benchmarks.engine.__main__ import main
from benchmarks.engine.batch_sweep import BatchSweep
from benchmarks.engine.ladder import RUNGS, Rung, rungs_of
from benchmarks.engine.ladder_run import LadderRun
from benchmarks.lanes.base import StagedLane


def run(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, results: Path, *words: str
) -> dict[str, Any]:
    """Run the command in small; return its line of JSON."""
    small = ["--sizes", "64", "--rounds", "2", "--batches", "1", "2", "--scale", "0.01",
             "--rungs", "our loop", "channels-last"]  # fmt: skip
    folders = [f"--checkpoint={checkpoint}", f"--results={results}", f"--cache={results}"]
    main([*folders, *small, *words])
    summary: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return summary


def test_measure_and_resume(
    capsys: pytest.CaptureFixture[str], kl_checkpoint: Path, tmp_path: Path
) -> None:
    """Without time nothing is measured; then all, with whole rows and plots; then nothing again."""
    cut = run(capsys, kl_checkpoint, tmp_path, "--budget=0")
    assert cut["rows"] == []
    rungs = ["diffusers", "our loop", "channels-last"]
    assert cut["left"] == [
        *(f"rung {name}, size 64, steps 4" for name in rungs),
        *(
            f"stage {stage}, size 64, batch {rows}"
            for stage in ("unet", "encode", "decode")
            for rows in (1, 2)
        ),
    ]
    assert run(capsys, kl_checkpoint, tmp_path)["left"] == []
    ladder_rows, batch_rows = (read_rows(tmp_path / f"{name}.csv") for name in ("engine", "batch"))
    assert [row["rung"] for row in ladder_rows] == rungs
    assert [row["batch"] for row in batch_rows] == 3 * ["1", "2"]
    for rows, experiment in ((ladder_rows, LadderRun), (batch_rows, BatchSweep)):
        wanted = {*experiment.columns, "card", "driver", "torch", "dtype", "threads", "commit"}
        assert all(row[name] for row in rows for name in wanted)
    assert {row["unet_calls"] for row in ladder_rows} == {"4"}
    assert ladder_rows[0]["time_vs_diffusers"] == "1.0"
    for name in ("engine.png", "batch.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert run(capsys, kl_checkpoint, tmp_path)["rows"] == []
    anew = run(capsys, kl_checkpoint, tmp_path, "--batches", "--anew")
    assert [row["rung"] for row in anew["rows"]] == rungs


def test_broken_rung(
    capsys: pytest.CaptureFixture[str],
    kl_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rung that cannot be compiled fails the run, and costs no other its row."""

    def broken(*_: object) -> StagedLane:
        raise RuntimeError("it could not be compiled")

    monkeypatch.setattr(ladder, "RUNGS", (*RUNGS[:2], Rung("compiled", "more", broken)))
    with pytest.raises(SystemExit, match="it could not be compiled"):
        run(capsys, kl_checkpoint, tmp_path, "--batches", "--rungs", "our loop", "compiled")
    assert [row["rung"] for row in read_rows(tmp_path / "engine.csv")] == ["diffusers", "our loop"]


def test_available_rungs(kl_checkpoint: Path, tmp_path: Path) -> None:
    """A CPU has no CUDA graphs; CUDA with a TAESD has all rungs; unknown names are refused."""
    cpu, cuda = Setup(kl_checkpoint), Setup(kl_checkpoint, device="cuda", tiny=tmp_path)
    names = [rung.name for rung in rungs_of(cpu)]
    assert names == ["diffusers", "our loop", "channels-last", "compiled", "tuned"]
    assert rungs_of(cuda) == list(RUNGS)
    with pytest.raises(ValueError, match="no rung is called stairs"):
        rungs_of(cuda, ["stairs"])
