"""The lanes A to F: equal pictures before any time, whole rows, and a stream that is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.core import random_checkpoint
from benchmarks.core.flops import count_work
from benchmarks.core.jobs import make_job, mixed_jobs, stream_jobs
from benchmarks.core.rows import read_rows
from benchmarks.core.setup import Place
from benchmarks.lanes.ablations import AlikeLane, group_alike
from benchmarks.lanes.base import DiffusersLane
from benchmarks.lanes.engine import EngineLane
from benchmarks.lanes.isolated import ApartLane
from benchmarks.lanes.registry import CROWD, STREAM, Team, contenders_of
from benchmarks.lanes.stream_diffusion import StreamLane
from benchmarks.peers import __main__ as bench_peers
from benchmarks.peers import comparison as race
from service.jobs import Job, Pixels
from tests.checkpoints import write_taesd

SIDE = 64

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], kl_checkpoint: Path, tmp_path: Path) -> Run:
    """Run the benchmark in small; return its line of JSON."""
    tiny = write_taesd(tmp_path / "taesd")

    def run(*words: str) -> dict[str, Any]:
        places = [f"--checkpoint={kl_checkpoint}", f"--results={tmp_path}", f"--cache={tmp_path}"]
        small = [
            f"--size={SIDE}",
            "--users=3",
            "--rounds=1",
            "--warm-ups=0",
            "--frames=3",
            "--max-batch=4",
        ]
        bench_peers.main([*places, f"--tiny={tiny}", *small, *words])
        told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return told

    return run


def test_all_lanes_of_a_cpu_run_and_go_on(run: Run, tmp_path: Path) -> None:
    """Whole rows for A, D, E, its ablations, C and F; a plot; and nothing twice."""
    letters = ["A", "E", "D", "A-held", "E-alike", "E-jpeg", "E-png", "C", "F"]
    assert run("--budget=0")["left"] == letters
    assert run("--lanes", "D")["left"] == []
    assert run()["left"] == []
    crowd, stream = (read_rows(tmp_path / f"{name}.csv") for name in ("peers", "stream"))
    assert [row["lane"] for row in crowd] == ["A", "D", "E", *letters[3:7]]
    assert [row["lane"] for row in stream] == ["C", "F"]
    beside = {"rounds", "size", "steps", "card", "driver", "torch", "dtype", "threads", "commit"}
    for rows, columns in ((crowd, race.CROWD_COLUMNS), (stream, race.STREAM_COLUMNS)):
        wanted = {*columns, *beside} - {"rate_against_b"}  # B is compiled
        assert all(row[name] for row in rows for name in wanted)
    by_lane = {row["lane"]: row for row in crowd}
    assert {row["unet_rows"] for row in crowd} == {by_lane["A"]["unet_rows"]}  # equal work
    assert int(by_lane["E"]["unet_calls"]) < int(by_lane["D"]["unet_calls"])
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
    assert run()["rows"] == []


def test_a_lane_that_makes_another_picture_is_not_timed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Speed is of equal pictures, or there is no row; the run fails, and keeps the others'."""
    true_picture = EngineLane.picture

    def upside_down(lane: EngineLane, job: Job) -> Pixels:
        picture = true_picture(lane, job)
        return picture[::-1] if lane.name == "D" else picture

    monkeypatch.setattr(EngineLane, "picture", upside_down)
    with pytest.raises(SystemExit, match=r"D alone is .* levels from the first lane's picture"):
        run("--lanes", "E", "D")
    assert [row["lane"] for row in read_rows(tmp_path / "peers.csv")] == ["A", "E"]


def test_a_picture_that_depends_on_its_neighbours_is_not_timed(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same for a lane whose pictures are right alone and wrong in company."""
    true_pictures = EngineLane.pictures

    def leaky(lane: EngineLane, jobs: list[Job]) -> dict[str, Pixels]:
        made = true_pictures(lane, jobs)
        return made if len(made) == 1 else {name: one[::-1] for name, one in made.items()}

    monkeypatch.setattr(EngineLane, "pictures", leaky)
    with pytest.raises(SystemExit, match="E in company is"):
        run("--lanes", "E")
    assert [row["lane"] for row in read_rows(tmp_path / "peers.csv")] == ["A"]


def test_a_lane_that_cannot_be_made_costs_no_other_its_row(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is told, and left for another time; without the first lane there is no run."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(StreamLane, "__init__", broken)
    with pytest.raises(RuntimeError, match="no kernel for this"):
        run("--lanes", "C")
    monkeypatch.setattr(Team, "batching", broken)
    with pytest.raises(SystemExit, match="no kernel for this"):
        run("--lanes", "E", "D")
    assert [row["lane"] for row in read_rows(tmp_path / "peers.csv")] == ["A", "D"]


@pytest.fixture(scope="module")
def place(kl_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("taesd")
    return Place(kl_checkpoint, tiny=write_taesd(folder), cache=folder)


def test_the_stream_batch_makes_the_pictures_of_lcm(place: Place) -> None:
    """A lone frame comes out as diffusers makes it with the same autoencoder and seed."""
    job = make_job(5, size=SIDE)
    streamed = StreamLane(place, "C").picture(job).astype(int)
    assert np.abs(streamed - DiffusersLane(place, is_tiny=True).picture(job)).max() <= 1
    assert np.abs(streamed - DiffusersLane(place).picture(job)).max() > 20  # no other one's


def test_frames_of_a_stream_do_not_mix(place: Place) -> None:
    """Each frame comes out N calls after it went in, as if it were alone."""
    lane, frames = StreamLane(place, "C"), stream_jobs(6, SIDE)
    frames = [replace(frame, image=np.roll(frame.image, 9 * number, axis=0))
              for number, frame in enumerate(frames)]  # fmt: skip
    stream, buffer, came = lane._begin(frames[0]), None, []
    for frame in frames:
        picture, buffer = lane._feed(stream, buffer, frame.image)
        came.append(picture.astype(int))
    for number, frame in enumerate(frames[:3]):
        assert np.abs(came[number + 3] - lane.picture(frame)).max() <= 1
    assert np.abs(came[3] - came[4]).max() > 20


def test_both_lanes_of_a_stream_keep_as_many_frames_on_their_way(place: Place) -> None:
    """So that neither has more to batch: a time for each frame, N of them in flight."""
    engine = EngineLane(place, "F", max_batch=8, autoencoder="tiny", size=SIDE)
    frames = stream_jobs(5, SIDE)
    for lane in (StreamLane(place, "C"), engine):
        seconds, latencies = lane.stream(frames, 4)
        assert seconds > 0
        assert len(latencies) >= 5
    assert engine._engine.stats.max_batch_seen <= 4
    assert not engine._engine.has_work()
    with pytest.raises(ValueError, match="4 steps hold as many frames, not 3"):
        StreamLane(place, "C").stream(frames, 3)


def test_only_alike_requests_are_batched_whole(place: Place) -> None:
    """Each request is in one group; none of another kind shares its UNet calls."""
    jobs = mixed_jobs(16, SIDE)
    groups = group_alike(jobs)
    assert sorted(job.id for group in groups for job in group) == sorted(job.id for job in jobs)
    assert 1 < len(groups) < 16  # the crowd has alike ones: others are given a chance
    batching = EngineLane(place, "E", max_batch=8, size=SIDE)
    alike = AlikeLane(batching, "E-alike")
    assert len(alike.run(jobs)) == 16
    batching.run(jobs)
    assert alike.unet_rows == batching.unet_rows
    assert alike.unet_calls > batching.unet_calls


@pytest.mark.parametrize("size", ["tiny", "tiny-sdxl"])
def test_random_weights_serve_the_lanes(tmp_path: Path, size: str) -> None:
    """What is made on the machine that measures loads, with an autoencoder beside its own."""
    random_checkpoint.write(random_checkpoint.SIZES[size], tmp_path / "random")
    place = Place(tmp_path / "random", tiny=tmp_path / "random" / "tiny", cache=tmp_path)
    job = make_job(2, size=SIDE)
    for is_tiny in (False, True):
        ours = EngineLane(place, "ours", autoencoder="tiny" if is_tiny else "full", size=SIDE)
        lane = DiffusersLane(place, is_tiny=is_tiny)
        theirs = lane.picture(job).astype(int)
        assert np.abs(ours.picture(job) - theirs).max() <= 1
        assert theirs.min() != theirs.max()
    for call in (*ours.parts(SIDE).values(), *lane.parts(SIDE).values()):
        call()
    assert count_work(place, SIDE, SIDE).keys() >= {"unet", "text", "encode", "tiny_decode"}


def test_a_lane_apart_is_the_lane_itself(place: Place) -> None:
    """Equal pictures and counts from a process of its own, and what goes wrong there is told."""
    jobs = [make_job(number, size=SIDE) for number in (3, 4)]
    lane, apart = DiffusersLane(place), ApartLane("A", partial(DiffusersLane, place, "A"))
    for job in jobs:
        assert np.array_equal(apart.picture(job), lane.picture(job))
    seconds = apart.run(jobs)
    lane.run(jobs)
    assert len(seconds) == 2
    assert 0 < seconds[0] < seconds[1]
    assert (apart.unet_calls, apart.unet_rows) == (lane.unet_calls, lane.unet_rows)
    with pytest.raises(RuntimeError, match=r"A: .*NoneType"):
        apart.picture(replace(jobs[0], params=None))  # type: ignore[arg-type]
    assert np.array_equal(apart.picture(jobs[0]), lane.picture(jobs[0]))
    with pytest.raises(RuntimeError, match=r"^A: "):
        ApartLane("A", partial(DiffusersLane, replace(place, checkpoint=Path("nowhere")), "A"))


def test_each_lane_has_a_letter_of_its_own(kl_checkpoint: Path) -> None:
    """Rows are found again by it; a lane is there where what it shows is: compiled, on a CPU."""
    letters = [one.letter for one in (*CROWD, *STREAM)]
    assert len(set(letters)) == len(letters)
    place = Place(kl_checkpoint, device="cuda")
    compiled = contenders_of(CROWD, Team(place, 512, 8, is_compiled=True))
    crowd = [one.letter for one in CROWD]
    assert [one.letter for one in compiled] == [one for one in crowd if one != "A-held"]
    held = contenders_of(CROWD, Team(Place(kl_checkpoint), 512, 8, is_compiled=False), ["A-held"])
    assert [one.letter for one in held] == ["A", "A-held"]
    eager = contenders_of(CROWD, Team(place, 512, 8, is_compiled=False), ["B", "D"])
    assert [one.letter for one in eager] == ["A", "D"]
