"""What a step leaves on its way: nothing is read before it is there, and nothing is lost on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from models.loader import CheckpointFiles, load_pipeline
from models.pipeline import Pipeline
from service.engine.engine import Engine
from service.engine.scheduler import Scheduler
from service.protocol.jobs import Failed, Finished, Job, Pixels, Progress, StageTimes
from tests.engine.test_engine import mixed_jobs
from tests.engine.test_faults import HookedPipeline, OverflowingOnce, overflowing, small_job
from tests.models.runtime.test_forward import RecordingCapturer
from tests.support.engine_runs import SIDE, levels_apart, load, make_engine, make_job, picture, run
from tests.support.late_device import LateTransfer


def late_engine(
    pipeline: Pipeline,
    device: LateTransfer,
    *,
    max_batch: int = 4,
    clock: Callable[[], float] = lambda: 0.0,
) -> Engine:
    scheduler = Scheduler(max_batch=max_batch, max_waiting=64)
    return Engine({"": pipeline}, scheduler, clock, transfer=device, poisons_freed_slots=True)


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> Pipeline:
    return load(tiny_checkpoint)


@pytest.mark.parametrize("max_batch", [1, 4])
@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_pictures_do_not_depend_on_how_far_a_device_is_behind(
    pipeline: Pipeline, max_batch: int, chance: float
) -> None:
    """Whether it is never done until it is waited for, or sometimes: pictures are equal."""
    jobs = mixed_jobs(6)
    expected = run(make_engine(pipeline, max_batch=max_batch), jobs)
    engine = late_engine(pipeline, LateTransfer(chance), max_batch=max_batch)
    outcomes = run(engine, jobs)
    for job in jobs:
        assert levels_apart(picture(outcomes[job.id]), picture(expected[job.id])) <= 1
    assert (engine.num_running, engine.num_jobs) == (0, 0)


def test_a_step_is_put_before_the_device_while_it_does_the_one_before(pipeline: Pipeline) -> None:
    """The host waits for a step when the next one is there already; at the end, for the last."""
    log: list[str] = []
    device = LateTransfer()
    device.on_wait = lambda: log.append("wait")
    engine = late_engine(HookedPipeline(pipeline, lambda _latents: log.append("unet")), device)
    engine.add(make_job(steps=4))
    num_steps = 0
    while engine.has_work():
        outcomes = engine.step()
        num_steps += 1
    assert log == ["unet", *["unet", "wait"] * 3, "wait"]
    assert num_steps == 4, "the last step waits for its picture, and none does nothing"
    assert [outcome.job_id for outcome in outcomes] == ["job"]


def test_a_picture_on_its_way_holds_up_nobody(pipeline: Pipeline) -> None:
    """While the device decodes one, the next row takes its steps, in a batch of one too."""
    device = LateTransfer()
    engine = late_engine(pipeline, device, max_batch=1)
    engine.add(make_job("first", steps=4))
    engine.add(make_job("second", steps=4))
    for _ in range(4):
        assert engine.step() == []
    assert device.num_waits == 3
    calls = engine.stats.num_unet_calls
    (outcome,) = engine.step()
    assert isinstance(outcome, Finished)
    assert outcome.job_id == "first"
    assert engine.stats.num_unet_calls == calls + 1, "the second's first step was there by then"


def test_what_is_on_its_way_is_not_overwritten(kl_checkpoint: Path) -> None:
    """Captured forwards write each call's output where the last one's was: nobody reads it there.

    Encodes, UNet calls and decodes of all buckets are captured, and rows wait for one another's.
    """
    capturer, pipeline, jobs = RecordingCapturer(), load(kl_checkpoint), mixed_jobs(7)
    expected = run(make_engine(pipeline), jobs)
    pipeline.buckets = (1, 2, 4)
    with torch.inference_mode():
        for size in pipeline.buckets:
            for forward, inputs in pipeline.forwards(SIDE, SIDE, size):
                forward.capture(capturer, *inputs)
    engine = late_engine(pipeline, LateTransfer(0.3))
    outcomes = run(engine, [*jobs, make_job("rows", seeds=(1, 2, 3, 4))])
    for job in jobs:
        assert levels_apart(picture(outcomes[job.id]), picture(expected[job.id])) <= 1
    assert sum(captured.num_replays > 0 for captured in capturer.captured) >= 6


@pytest.mark.parametrize("num_steps", range(1, 5))
def test_an_abort_costs_at_most_one_more_call(pipeline: Pipeline, num_steps: int) -> None:
    """Wherever the job is, its picture on its way included: slots are free, and nothing comes."""
    device = LateTransfer()
    engine = late_engine(pipeline, device)
    engine.add(make_job("gone", steps=4))
    engine.add(make_job("stays", steps=9, strength=1.0))
    for _ in range(num_steps):
        assert engine.step() == []
    engine.abort("gone")
    assert engine.num_running == 1
    calls = engine.stats.num_unet_calls
    assert list(run(engine, [])) == ["stays"]
    assert engine.stats.num_unet_calls == calls + 9 - num_steps
    assert (engine.num_running, engine.num_jobs) == (0, 0)


def test_an_abort_of_all_leaves_an_idle_engine(pipeline: Pipeline) -> None:
    """What was on its way for nobody is taken in and dropped; then there is nothing to do."""
    engine = late_engine(pipeline, LateTransfer())
    engine.add(make_job("gone", steps=4))
    engine.step()
    engine.abort("gone")
    assert engine.has_work()
    assert run(engine, []) == {}
    assert not engine.has_work()


def test_another_job_by_the_same_id_gets_no_foreign_picture(pipeline: Pipeline) -> None:
    """What was on its way for the aborted one is not taken for its successor's."""
    device = LateTransfer()
    engine = late_engine(pipeline, device)
    other = make_job("other", steps=9, strength=1.0)
    engine.add(make_job("job", steps=4, seeds=(1,)))
    engine.add(other)
    for _ in range(4):
        engine.step()
    engine.abort("job")
    successor = make_job("job", steps=4, seeds=(2,))
    outcomes = run(engine, [successor])
    expected = picture(run(make_engine(pipeline), [successor])["job"])
    assert levels_apart(picture(outcomes["job"]), expected) <= 1


def test_a_picture_that_comes_too_late_is_none(pipeline: Pipeline) -> None:
    """The deadline passes while it is on its way: it is told, and no picture comes after it."""
    now = 0.0
    engine = late_engine(pipeline, LateTransfer(), clock=lambda: now)
    engine.add(make_job("late", steps=4, timeout_s=5))
    engine.add(make_job("other", steps=9, strength=1.0))
    for _ in range(4):
        assert engine.step() == []
    now = 6.0
    outcomes = run(engine, [])
    assert outcomes.pop("late") == Failed("late", "deadline-exceeded")
    assert list(outcomes) == ["other"]
    assert engine.num_running == 0


def test_progress_is_told_when_a_step_is_done(pipeline: Pipeline) -> None:
    """Not when it is put before the device: a step later, in order, the last before the picture."""
    engine = late_engine(pipeline, LateTransfer())
    engine.add(make_job(steps=4, reports_progress=True))
    told = [engine.step() for _ in range(4)]
    assert told[:3] == [[], [Progress("job", 1, 4)], [Progress("job", 2, 4)]]
    assert told[3][:2] == [Progress("job", step, 4) for step in (3, 4)]
    assert isinstance(told[3][2], Finished)


def test_times_are_the_device_s_own(pipeline: Pipeline) -> None:
    """Each stage is measured from moment to moment, and a shared one is charged by rows."""
    engine = late_engine(pipeline, LateTransfer(), max_batch=4)
    jobs = [make_job("one", steps=4), make_job("three", steps=4, seeds=(1, 2, 3))]
    outcomes = run(engine, [jobs[0]])
    alone = outcomes["one"]
    assert isinstance(alone, Finished)
    # A span lasts a millisecond: text, noise and encode, four steps, a decode.
    assert alone.times == StageTimes(text_ms=1, encode_ms=2, denoise_ms=4, vae_ms=1)
    assert alone.device_ms == 8
    outcomes = run(engine, jobs)
    total = 0.0
    for outcome in outcomes.values():
        assert isinstance(outcome, Finished)
        total += outcome.device_ms
        assert outcome.times.denoise_ms >= 4
    assert total < sum(o.times.busy_ms for o in outcomes.values() if isinstance(o, Finished))


@pytest.mark.parametrize("part", ["decoder", "encoder", "unet"])
def test_what_overflows_16_bits_runs_again_from_its_slot(kl_checkpoint: Path, part: str) -> None:
    """It is seen when the picture arrives: the slot still has what the second run needs."""
    jobs = [small_job(name, random.Random(name)) for name in "abcefg"]
    if part == "unet":
        files = CheckpointFiles(kl_checkpoint)
        healthy = load_pipeline(files, device="cpu", dtype=torch.float16)
        expected = run(make_engine(healthy, max_batch=2), jobs)
        pipeline: Pipeline = OverflowingOnce(healthy)
    else:
        pipeline = overflowing(kl_checkpoint, part)
        expected = run(make_engine(pipeline, max_batch=2), jobs)
    engine = late_engine(pipeline, LateTransfer(0.3), max_batch=2)
    outcomes = run(engine, jobs)
    assert engine.stats.num_fp32_retries >= (1 if part == "unet" else len(jobs))
    assert engine.stats.num_failed == 0
    for job in jobs:
        assert levels_apart(picture(outcomes[job.id]), picture(expected[job.id])) <= 6


class Moody(HookedPipeline):
    """Fails by chance: an encode, a UNet call or a decode, of itself or for want of memory."""

    def __init__(self, healthy: Pipeline, rng: random.Random) -> None:
        super().__init__(healthy, lambda _latents: self._may_fail(0.02))
        self._rng = rng

    def _may_fail(self, chance: float) -> None:
        if self._rng.random() < chance:
            kind = self._rng.choice([ValueError, torch.OutOfMemoryError])
            raise kind("by chance")

    def encode_image(self, *given: Any, **named: Any) -> torch.Tensor:
        self._may_fail(0.1)
        return super().encode_image(*given, **named)

    def decode_latents(self, *given: Any, **named: Any) -> torch.Tensor:
        self._may_fail(0.1)
        pixels = super().decode_latents(*given, **named)
        if self._rng.random() < 0.1:
            pixels = pixels.clone()
            pixels[self._rng.randrange(len(pixels))] = float("nan")
        return pixels


@pytest.mark.parametrize("seed", range(4))
def test_invariants_hold_over_random_lives(pipeline: Pipeline, seed: int) -> None:
    """Whatever happens on the way: no slot is lost, each job has one end, and pictures are right.

    Jobs join, are aborted and expire at random steps; encodes, UNet calls and decodes fail, run out
    of memory or give NaN; the device is behind; freed slots are full of NaN.
    """
    rng = random.Random(seed)
    max_batch = rng.choice([1, 2, 4])
    life = _Life.of(Moody(pipeline, rng), LateTransfer(0.3, seed), max_batch)
    jobs = [_random_job(str(number), rng) for number in range(30)]
    waiting = list(jobs)
    while waiting or life.engine.has_work():
        for _ in range(rng.randint(0, 2)):
            if waiting:
                life.add(waiting.pop())
        if life.open and rng.random() < 0.05:
            life.abort(rng.choice(sorted(life.open)))
        life.step(seconds=rng.random())
    life.check_idle()
    assert len(life.finished) >= 5
    alone = make_engine(pipeline)
    for job in jobs:
        if job.id in life.finished:
            expected = run(alone, [job])[job.id]
            assert isinstance(expected, Finished)
            assert levels_apart(life.finished[job.id], expected.images) <= 1


def _random_job(job_id: str, rng: random.Random) -> Job:
    return make_job(
        job_id,
        prompt="poison" if rng.random() < 0.05 else f"thing {job_id}",
        height=rng.choice([64, 128]),
        width=64,
        steps=rng.randint(1, 4),
        guidance=rng.uniform(0.5, 20),
        seeds=tuple(rng.randrange(10**9) for _ in range(rng.choice([1, 1, 3]))),
        timeout_s=rng.choice([5.0, 1000.0, 1000.0]),
        reports_progress=rng.random() < 0.5,
        caller=rng.choice("ab"),
    )


@dataclass
class _Life:
    """An engine and what must be true of it: the jobs that still have no end."""

    engine: Engine
    scheduler: Scheduler
    times: list[float]
    open: dict[str, int] = field(default_factory=dict)  # the progress of each
    finished: dict[str, Pixels] = field(default_factory=dict)

    @classmethod
    def of(cls, pipeline: Pipeline, device: LateTransfer, max_batch: int) -> _Life:
        times = [0.0]
        scheduler = Scheduler(max_batch=max_batch, max_waiting=64)
        engine = Engine(
            {"": pipeline},
            scheduler,
            lambda: times[-1],
            transfer=device,
            poisons_freed_slots=True,
        )
        return cls(engine, scheduler, times)

    def add(self, job: Job) -> None:
        self.engine.add(job)
        self.open[job.id] = 0

    def abort(self, job_id: str) -> None:
        self.engine.abort(job_id)
        del self.open[job_id]

    def step(self, seconds: float) -> None:
        self.times.append(self.times[-1] + seconds)
        for outcome in self.engine.step():
            assert outcome.job_id in self.open, "it had its end already"
            if isinstance(outcome, Progress):
                self.open[outcome.job_id] += 1
                assert outcome.step <= outcome.num_steps
            else:
                del self.open[outcome.job_id]
            if isinstance(outcome, Finished):
                self.finished[outcome.job_id] = outcome.images
        taken = self.scheduler.num_running + len(self.scheduler.free_slots)
        assert taken == self.scheduler.num_slots
        assert self.engine.num_jobs == len(self.open)

    def check_idle(self) -> None:
        assert not self.open
        assert not self.engine.has_work()
        assert len(self.scheduler.free_slots) == self.scheduler.num_slots
        assert self.engine.num_jobs == 0
