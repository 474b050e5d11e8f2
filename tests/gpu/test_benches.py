"""The benchmarks of a GPU, in small: every rung and every lane there runs and is equal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.core import random_checkpoint
from benchmarks.core.rows import read_rows
from benchmarks.engine import __main__ as bench_engine
from benchmarks.peers import __main__ as bench_peers

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def test_each_rung_and_lane_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compiled, captured and with TAESD: nothing is left, and ours is held against diffusers'."""
    checkpoint = tmp_path / "tiny"
    random_checkpoint.write(random_checkpoint.SIZES["tiny"], checkpoint)
    place = [f"--checkpoint={checkpoint}", f"--results={tmp_path}", f"--cache={tmp_path}",
             "--device=cuda", "--rounds=3"]  # fmt: skip
    bench_engine.main([*place, "--sizes", "64", "--batches", "1", "2", "3", "--scale=0.1"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["left"] == []
    rungs = [row["rung"] for row in read_rows(tmp_path / "engine.csv")]
    assert rungs == [
        "diffusers", "our loop", "channels-last", "compiled", "CUDA graphs", "tuned", "TAESD",
    ]  # fmt: skip
    bench_peers.main([*place, "--size=64", "--users=4", "--max-batch=4", "--compiled"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["left"] == []
    lanes = {row["lane"] for row in read_rows(tmp_path / "peers.csv")}
    assert lanes == {"A", "B", "D", "E", "E-alike", "E-jpeg", "E-png", "E-no-graphs"}
