"""The benchmarks of a GPU in small: every rung and every lane runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.core import random_checkpoint
from benchmarks.core.rows import read_rows
from benchmarks.engine import __main__ as engine
from benchmarks.engine.ladder import RUNGS
from benchmarks.lanes.registry import REQUEST_LANES
from benchmarks.peers import __main__ as peers

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def test_each_rung_and_lane(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compiled, captured and with TAESD: every rung and lane has a row, and equals diffusers."""
    checkpoint = tmp_path / "tiny"
    random_checkpoint.write(random_checkpoint.SIZES["tiny"], checkpoint)
    words = [f"--checkpoint={checkpoint}", f"--results={tmp_path}", f"--cache={tmp_path}",
             "--device=cuda", "--rounds=3"]  # fmt: skip
    engine.main([*words, "--sizes", "64", "--batches", "1", "2", "3", "--scale=0.1"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["left"] == []
    rungs = [row["rung"] for row in read_rows(tmp_path / "engine.csv")]
    assert rungs == [rung.name for rung in RUNGS]
    peers.main([*words, "--size=64", "--users=4", "--max-batch=4", "--compiled"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["left"] == []
    lanes = {row["lane"] for row in read_rows(tmp_path / "peers.csv")}
    assert lanes == {spec.name for spec in REQUEST_LANES} - {"diffusers-eager-held-memory"}
