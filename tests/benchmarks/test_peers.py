"""Lanes side by side: equal pictures before any time, whole rows, and faults that stay alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.core.rows import read_rows
from benchmarks.lanes.engine import EngineLane
from benchmarks.lanes.registry import LaneFactory
from benchmarks.lanes.stream_diffusion import StreamLane
from benchmarks.peers.__main__ import main
from benchmarks.peers.comparison import ConcurrentRequests, UserStream
from service.protocol.jobs import Job, Pixels
from tests.support.checkpoints import write_taesd

REQUEST_LANES = [
    "diffusers-eager", "ours-batched", "ours-sequential", "diffusers-eager-held-memory",
    "ours-request-batched", "ours-batched-jpeg", "ours-batched-png",
]  # fmt: skip
STREAM_LANES = ["stream-diffusion", "ours-taesd"]

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], kl_checkpoint: Path, tmp_path: Path) -> Run:
    """Run the command in small; return its line of JSON."""
    tiny = write_taesd(tmp_path / "taesd")

    def run(*words: str) -> dict[str, Any]:
        folders = [f"--checkpoint={kl_checkpoint}", f"--results={tmp_path}", f"--cache={tmp_path}"]
        small = ["--size=64", "--users=3", "--rounds=1", "--warm-ups=0", "--frames=3",
                 "--max-batch=4"]  # fmt: skip
        main([*folders, f"--tiny={tiny}", *small, *words])
        summary: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return summary

    return run


def lanes(path: Path) -> list[str]:
    return [row["lane"] for row in read_rows(path)]


def test_all_cpu_lanes_and_resume(run: Run, tmp_path: Path) -> None:
    """All lanes of a CPU have whole rows and equal UNet work; a plot; and nothing runs twice."""
    left = [f"lane {name}" for name in (*REQUEST_LANES, *STREAM_LANES)]
    assert run("--budget=0")["left"] == left
    assert run("--lanes", "ours-sequential")["left"] == []
    assert run()["left"] == []
    requests, stream = (read_rows(tmp_path / f"{name}.csv") for name in ("peers", "stream"))
    expected = ["diffusers-eager", "ours-sequential", "ours-batched", *REQUEST_LANES[3:]]
    assert [row["lane"] for row in requests] == expected
    assert [row["lane"] for row in stream] == STREAM_LANES
    also = {"rounds", "size", "steps", "card", "driver", "torch", "dtype", "threads", "commit"}
    for rows, experiment in ((requests, ConcurrentRequests), (stream, UserStream)):
        wanted = {*experiment.columns, *also} - {"rate_vs_diffusers_compiled"}
        assert all(row[name] for row in rows for name in wanted)
    by_lane = {row["lane"]: row for row in requests}
    assert {row["unet_rows"] for row in requests} == {by_lane["diffusers-eager"]["unet_rows"]}
    calls = {name: int(by_lane[name]["unet_calls"]) for name in REQUEST_LANES}
    assert calls["ours-batched"] < calls["ours-sequential"]
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
    assert run()["rows"] == []


def test_other_picture(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane that makes another picture has no row and fails the run; others keep theirs."""
    true_picture = EngineLane.picture

    def upside_down(lane: EngineLane, job: Job) -> Pixels:
        picture = true_picture(lane, job)
        return picture[::-1] if lane.name == "ours-sequential" else picture

    monkeypatch.setattr(EngineLane, "picture", upside_down)
    with pytest.raises(SystemExit, match=r"ours-sequential alone: .* levels from the first lane's"):
        run("--lanes", "ours-batched", "ours-sequential")
    assert lanes(tmp_path / "peers.csv") == ["diffusers-eager", "ours-batched"]


def test_picture_depends_on_batch(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So does a lane whose pictures are right alone and wrong in a batch."""
    true_pictures = EngineLane.pictures

    def leaky(lane: EngineLane, jobs: list[Job]) -> dict[str, Pixels]:
        made = true_pictures(lane, jobs)
        return made if len(made) == 1 else {name: one[::-1] for name, one in made.items()}

    monkeypatch.setattr(EngineLane, "pictures", leaky)
    with pytest.raises(SystemExit, match="ours-batched in a batch:"):
        run("--lanes", "ours-batched")
    assert lanes(tmp_path / "peers.csv") == ["diffusers-eager"]


def test_broken_lane(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A lane that cannot be made costs no other its row; without the first there is no run."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(StreamLane, "__init__", broken)
    with pytest.raises(RuntimeError, match="no kernel for this"):
        run("--lanes", "stream-diffusion")
    monkeypatch.setattr(LaneFactory, "batched", property(broken))
    with pytest.raises(SystemExit, match="no kernel for this"):
        run("--lanes", "ours-batched", "ours-sequential")
    assert lanes(tmp_path / "peers.csv") == ["diffusers-eager", "ours-sequential"]
