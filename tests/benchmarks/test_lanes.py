"""The lanes: each makes diffusers' pictures, and a stream keeps its frames separate."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.core import random_checkpoint
from benchmarks.core.flops import stage_costs
from benchmarks.core.jobs import make_job, mixed_jobs, stream_jobs
from benchmarks.core.setup import Setup
from benchmarks.lanes.ablations import RequestBatchedLane, equal_batches
from benchmarks.lanes.diffusers import DiffusersLane
from benchmarks.lanes.engine import EngineLane
from benchmarks.lanes.isolated import IsolatedLane
from benchmarks.lanes.registry import (
    DIFFUSERS_EAGER,
    REQUEST_LANES,
    STREAM_DIFFUSION,
    STREAM_LANES,
    LaneFactory,
    select,
)
from benchmarks.lanes.stream_diffusion import StreamLane
from tests.support.checkpoints import write_taesd

SIDE = 64


@pytest.fixture(scope="module")
def setup(kl_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("taesd")
    return Setup(kl_checkpoint, tiny=write_taesd(folder), cache=folder)


def test_stream_batch_is_lcm(setup: Setup) -> None:
    """A single frame is diffusers' picture with the same autoencoder and seed."""
    job = make_job(5, size=SIDE)
    streamed = StreamLane(setup, STREAM_DIFFUSION).picture(job).astype(int)
    assert np.abs(streamed - DiffusersLane(setup, is_tiny=True).picture(job)).max() <= 1
    assert np.abs(streamed - DiffusersLane(setup).picture(job)).max() > 20


def test_frames_do_not_mix(setup: Setup) -> None:
    """Each frame comes out N calls after it went in, as if it were alone."""
    lane, frames = StreamLane(setup, STREAM_DIFFUSION), stream_jobs(6, SIDE)
    frames = [replace(frame, image=np.roll(frame.image, 9 * number, axis=0))
              for number, frame in enumerate(frames)]  # fmt: skip
    stream, buffer, came = lane.begin(frames[0]), None, []
    for frame in frames:
        picture, buffer = lane.feed(stream, buffer, frame.image)
        came.append(picture.astype(int))
    for number, frame in enumerate(frames[:3]):
        assert np.abs(came[number + 3] - lane.picture(frame)).max() <= 1
    assert np.abs(came[3] - came[4]).max() > 20


def test_frames_in_flight(setup: Setup) -> None:
    """Both lanes keep N frames in flight, so neither has more to batch."""
    engine = EngineLane(setup, "ours-taesd", max_batch=8, autoencoder="tiny", size=SIDE)
    frames = stream_jobs(5, SIDE)
    for lane in (StreamLane(setup, STREAM_DIFFUSION), engine):
        seconds, latencies = lane.stream(frames, 4)
        assert seconds > 0
        assert len(latencies) >= 5
    assert engine._engine.stats.max_batch_seen <= 4
    assert not engine._engine.has_work()
    with pytest.raises(ValueError, match="4 steps hold as many frames, not 3"):
        StreamLane(setup, STREAM_DIFFUSION).stream(frames, 3)


def test_request_batching(setup: Setup) -> None:
    """Each request is in one batch of equal ones; the UNet rows are those of step batching."""
    jobs = mixed_jobs(16, SIDE)
    batches = equal_batches(jobs)
    assert sorted(job.id for batch in batches for job in batch) == sorted(job.id for job in jobs)
    assert 1 < len(batches) < 16  # some requests are equal, so this lane has a chance
    batched = EngineLane(setup, "ours-batched", max_batch=8, size=SIDE)
    lane = RequestBatchedLane(batched, "ours-request-batched")
    assert len(lane.run(jobs)) == 16
    batched.run(jobs)
    assert lane.unet_rows == batched.unet_rows
    assert lane.unet_calls > batched.unet_calls


@pytest.mark.parametrize("size", ["tiny", "tiny-sdxl"])
def test_random_weights(tmp_path: Path, size: str) -> None:
    """A random checkpoint loads in all lanes with both autoencoders, and has stages and costs."""
    random_checkpoint.write(random_checkpoint.SIZES[size], tmp_path / "random")
    setup = Setup(tmp_path / "random", tiny=tmp_path / "random" / "tiny", cache=tmp_path)
    job = make_job(2, size=SIDE)
    for is_tiny in (False, True):
        ours = EngineLane(setup, "ours", autoencoder="tiny" if is_tiny else "full", size=SIDE)
        lane = DiffusersLane(setup, is_tiny=is_tiny)
        theirs = lane.picture(job).astype(int)
        assert np.abs(ours.picture(job) - theirs).max() <= 1
        assert theirs.min() != theirs.max()
    for call in (*ours.stages(SIDE).values(), *lane.stages(SIDE).values()):
        call()
    assert stage_costs(setup, SIDE, SIDE).keys() >= {"unet", "text", "encode", "tiny_decode"}


def test_smallest_random_weights(tmp_path: Path) -> None:
    """The soak's checkpoint loads and makes diffusers' picture."""
    random_checkpoint.write(random_checkpoint.SIZES["smallest"], tmp_path)
    setup, job = Setup(tmp_path, cache=tmp_path), make_job(2, size=SIDE)
    theirs = DiffusersLane(setup).picture(job).astype(int)
    assert np.abs(EngineLane(setup, "ours").picture(job) - theirs).max() <= 1


def test_isolated_lane(setup: Setup) -> None:
    """Pictures and counts are the lane's; exceptions of the other process are raised here."""
    jobs = [make_job(number, size=SIDE) for number in (3, 4)]
    lane = DiffusersLane(setup)
    isolated = IsolatedLane("A", partial(DiffusersLane, setup, "A"))
    for job in jobs:
        assert np.array_equal(isolated.picture(job), lane.picture(job))
    seconds = isolated.run(jobs)
    lane.run(jobs)
    assert len(seconds) == 2
    assert 0 < seconds[0] < seconds[1]
    assert (isolated.unet_calls, isolated.unet_rows) == (lane.unet_calls, lane.unet_rows)
    with pytest.raises(RuntimeError, match=r"A: .*NoneType"):
        isolated.picture(replace(jobs[0], params=None))  # type: ignore[arg-type]
    assert np.array_equal(isolated.picture(jobs[0]), lane.picture(jobs[0]))
    with pytest.raises(RuntimeError, match=r"^A: "):
        IsolatedLane("A", partial(DiffusersLane, replace(setup, checkpoint=Path("nowhere")), "A"))


def test_available_lanes(kl_checkpoint: Path) -> None:
    """Names are unique, and some lanes always run beside the first, the base of the ratios."""
    names = [spec.name for spec in (*REQUEST_LANES, *STREAM_LANES)]
    assert len(set(names)) == len(names)
    factory = LaneFactory(Setup(kl_checkpoint, device="cuda"), 512, 8, is_compiled=False)
    some = select(REQUEST_LANES, factory, ["diffusers-compiled", "ours-sequential"])
    assert [spec.name for spec in some] == [DIFFUSERS_EAGER, "ours-sequential"]
