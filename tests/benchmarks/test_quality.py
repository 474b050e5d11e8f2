"""Quality against fp32 eager diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.core.rows import read_rows
from benchmarks.engine import ladder, quality
from benchmarks.engine.ladder import Rung
from benchmarks.lanes.engine import EngineLane
from service.protocol.jobs import Job, Pixels

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], kl_checkpoint: Path, tmp_path: Path) -> Run:
    """Run the command in small; return its line of JSON."""

    def run(*words: str) -> dict[str, Any]:
        folders = [f"--checkpoint={kl_checkpoint}", f"--results={tmp_path}", f"--cache={tmp_path}"]
        quality.main([*folders, "--size=64", "--jobs=3", "--dtypes=bfloat16", *words])
        summary: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return summary

    return run


def test_quality(run: Run, tmp_path: Path) -> None:
    """Our loop, batched, padded and in bfloat16 pass; rows are whole, and not measured again."""
    assert run("--rungs=our loop", "--budget=0")["rows"] == []
    assert run("--rungs=our loop")["left"] == []
    rows = read_rows(tmp_path / "quality.csv")
    assert [(row["way"], row["dtype"]) for row in rows] == [
        ("diffusers", "float32"), ("our loop", "float32"), ("batched", "float32"),
        ("padded", "float32"), ("batched", "bfloat16"),
    ]  # fmt: skip
    wanted = {*quality.Quality.columns, "jobs", "size", "card", "torch", "threads", "commit"}
    assert all(row[name] for row in rows for name in wanted)
    assert rows[0]["worst_db"] == "99.0"  # the reference itself, run again
    assert float(rows[4]["worst_db"]) < float(rows[2]["worst_db"])  # 16 bits show
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert run("--rungs=our loop")["rows"] == []


class Off(EngineLane):
    """A lane with a little noise in its pictures."""

    def picture(self, job: Job) -> Pixels:
        noise = np.random.default_rng(0).integers(-4, 5, job.image.shape)
        picture: Pixels = np.clip(super().picture(job) + noise, 0, 255).astype(np.uint8)
        return picture


def test_bad_rung(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invisible noise is more than fp32 explains; a run that finds the row fails, too."""
    bad = Rung("off", "noise", lambda setup, size: Off(setup, "off", size=size))
    monkeypatch.setattr(ladder, "RUNGS", (ladder.RUNGS[0], bad))
    for _ in range(2):  # the second run finds the row of the first
        with pytest.raises(SystemExit, match="too far from the reference: off, float32"):
            run()
    rows = read_rows(tmp_path / "quality.csv")
    assert [row["way"] for row in rows if row["passes"] == "False"] == ["off"]


def test_psnr() -> None:
    """One level off everywhere is 48.13 dB; equal pictures have 99."""
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert quality.psnr_db(grey + 1, grey) == pytest.approx(48.13, abs=0.01)
    assert quality.psnr_db(grey, grey) == 99
    row = quality.compare({"a": grey + 1, "b": grey}, {"a": grey, "b": grey}, 48)
    assert (row["passes"], row["max_difference"], row["share_of_values_off"]) == (True, 1, 0.5)
    assert not quality.compare({"a": grey + 2}, {"a": grey}, 48)["passes"]
