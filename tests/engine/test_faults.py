"""Faults of the device, of memory and of numbers: whom they reach, and what becomes of them."""

from __future__ import annotations

import copy
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.autoencoder import Autoencoder
from models.loader import CheckpointFiles, load_pipeline
from models.pipeline import Pipeline
from models.text_encoder import PromptEmbeds
from service.engine.engine import Engine
from service.engine.faults import DeviceLost, is_out_of_memory, is_sticky
from service.engine.scheduler import Scheduler
from service.protocol.jobs import Failed, Finished, Job
from tests.support.engine_runs import levels_apart, load, make_engine, make_job, picture, run

SIDE = 64
UNET_FAILS = 1e30


class HookedPipeline(Pipeline):
    """A pipeline that calls a test's own function before the UNet, which may raise."""

    def __init__(self, healthy: Pipeline, before_unet: Callable[[torch.Tensor], None]) -> None:
        vars(self).update(vars(healthy))
        self._before_unet = before_unet

    def predict_noise(self, latents: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
        self._before_unet(latents)
        return super().predict_noise(latents, *others, **named)

    def encode_prompt(self, prompt: str, *others: Any, **named: Any) -> PromptEmbeds:
        if "poison" in prompt:
            raise ValueError("a prompt that cannot be encoded")
        return super().encode_prompt(prompt, *others, **named)


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> Pipeline:
    return load(tiny_checkpoint)


def small_job(job_id: str, rng: random.Random, prompt: str = "") -> Job:
    return make_job(
        job_id,
        prompt=prompt or f"thing {job_id}",
        height=SIDE,
        width=SIDE,
        steps=rng.randint(1, 4),
        strength=rng.choice([0.3, 0.5, 1.0]),
        guidance=rng.uniform(0.5, 20),
        seeds=(rng.randrange(10**9),),
    )


def test_a_batch_that_does_not_fit_is_halved_until_it_does(pipeline: Pipeline) -> None:
    """Out of memory at more than two rows: every picture is made, and two share steps from now."""

    def only_two_fit(latents: torch.Tensor) -> None:
        if len(latents) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    jobs = [small_job(str(number), random.Random(number)) for number in range(8)]
    expected = run(make_engine(pipeline, max_batch=8), jobs)
    engine = make_engine(HookedPipeline(pipeline, only_two_fit), max_batch=8)
    outcomes = run(engine, jobs)
    for job in jobs:
        assert levels_apart(picture(outcomes[job.id]), picture(expected[job.id])) <= 1
    assert engine.stats.num_out_of_memory >= 1
    calls = engine.stats.batch_sizes
    run(engine, jobs)
    assert engine.stats.batch_sizes[2:] == calls[2:], "a large batch was tried again"


def test_a_row_that_never_fits_is_told_so(pipeline: Pipeline) -> None:
    """Alone and without memory a job fails as overloaded, after one more try; the next one runs."""
    failures = iter([True, True])

    def two_failures(_latents: torch.Tensor) -> None:
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine = make_engine(HookedPipeline(pipeline, two_failures))
    outcomes = run(engine, [small_job(name, random.Random(name)) for name in ("first", "next")])
    assert outcomes["first"] == Failed("first", "out-of-memory")
    assert isinstance(outcomes["next"], Finished)


def test_memory_is_tried_again_only_when_the_failure_s_own_is_free(pipeline: Pipeline) -> None:
    """The exception's frames hold tensors: by the next try they are gone."""
    held: list[weakref.ref[torch.Tensor]] = []

    def fails_once(_latents: torch.Tensor) -> None:
        if held:
            assert held[0]() is None, "the failed try still holds its tensors"
            return
        large = torch.zeros(1 << 20)
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory")

    outcomes = run(
        make_engine(HookedPipeline(pipeline, fails_once)), [small_job("job", random.Random(0))]
    )
    assert isinstance(outcomes["job"], Finished)


@pytest.mark.parametrize(
    ("error", "is_memory", "is_sick"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True, False),
        (torch.AcceleratorError("CUDA error: out of memory"), True, False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True, False),
        (MemoryError(), True, False),
        (torch.AcceleratorError("CUDA error: an illegal memory access"), False, True),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("CUDA error: unspecified launch failure"), False, True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), False, True),
        (RuntimeError("CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (RuntimeError("The size of tensor a (3) must match"), False, False),
        (ValueError("a device-side assert is mentioned"), False, False),
    ],
)
def test_errors_are_told_apart(error: Exception, *, is_memory: bool, is_sick: bool) -> None:
    """No memory is no sickness, and a wrong shape is neither."""
    assert (is_out_of_memory(error), is_sticky(error)) == (is_memory, is_sick)


@pytest.mark.parametrize("max_batch", [1, 4])
def test_a_sick_device_ends_the_engine(pipeline: Pipeline, max_batch: int) -> None:
    """An error that sticks fails no job alone: it leaves `step`, for the process to end."""

    def sick(_latents: torch.Tensor) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    engine = make_engine(HookedPipeline(pipeline, sick), max_batch=max_batch)
    for name in "abc":
        engine.add(small_job(name, random.Random(name)))
    with pytest.raises(DeviceLost):
        engine.step()


def overflowing(folder: Path, part: str) -> Pipeline:
    """A pipeline in fp16 whose autoencoder overflows: its first layer gives 2^18 times too much.

    The norm after it brings that back to one, so that fp32 makes an ordinary picture.
    """
    pipeline = load_pipeline(CheckpointFiles(folder), device="cpu", dtype=torch.float16)
    vae = copy.deepcopy(pipeline.autoencoders["full"].vae)
    with torch.no_grad():
        getattr(vae, part).conv_in.weight *= 2.0**18
    pipeline.autoencoders = {"full": Autoencoder(vae)}
    return pipeline


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_an_autoencoder_that_overflows_16_bits_runs_again_in_32(
    kl_checkpoint: Path, part: str
) -> None:
    """What would have been a black picture is made after all, counted, and the neighbour's too."""
    pipeline = overflowing(kl_checkpoint, part)
    engine = make_engine(pipeline, max_batch=2)
    outcomes = run(engine, [small_job(name, random.Random(name)) for name in ("a", "b")])
    assert engine.stats.num_fp32_retries >= 2
    assert engine.stats.num_not_finite == 0
    assert all(picture(outcome).std() > 1 for outcome in outcomes.values())


def test_a_unet_that_overflows_16_bits_runs_again_in_32(kl_checkpoint: Path) -> None:
    """The row runs its steps once more, alone and in fp32, near what fp32 makes from the start.

    Its weights stay as they are, and a second try does not follow the first.
    """
    pipeline = load_pipeline(CheckpointFiles(kl_checkpoint), device="cpu", dtype=torch.float16)
    overflow_in(pipeline)
    exact = load(kl_checkpoint)
    overflow_in(exact)
    jobs = [small_job(name, random.Random(name)) for name in ("a", "b", "c")]
    expected = run(make_engine(exact, max_batch=4), jobs)
    engine = make_engine(pipeline, max_batch=4)
    outcomes = run(engine, jobs)
    assert engine.stats.num_fp32_retries == len(jobs)
    assert (engine.stats.num_not_finite, engine.stats.num_failed) == (0, 0)
    for job in jobs:
        assert levels_apart(picture(outcomes[job.id]), picture(expected[job.id])) <= 6
    assert {weight.dtype for weight in pipeline.unet.parameters()} == {torch.float16}


def overflow_in(pipeline: Pipeline) -> None:
    """Let the UNet's first layer give 2^18 times too much: too much for fp16 and not for fp32."""
    with torch.no_grad():
        pipeline.unet.conv_in.weight *= 2.0**18


def test_one_row_that_overflows_leaves_its_neighbours_in_16_bits(kl_checkpoint: Path) -> None:
    """Only it is run again; a job of more rows has all its pictures, and the others theirs."""
    pipeline = load_pipeline(CheckpointFiles(kl_checkpoint), device="cpu", dtype=torch.float16)
    jobs = [small_job(name, random.Random(name)) for name in ("a", "b", "c")]
    expected = run(make_engine(pipeline, max_batch=4), jobs)
    engine = make_engine(OverflowingOnce(pipeline), max_batch=4)
    outcomes = run(engine, jobs)
    assert engine.stats.num_fp32_retries == 1
    for job in jobs:
        assert levels_apart(picture(outcomes[job.id]), picture(expected[job.id])) <= 6


class OverflowingOnce(HookedPipeline):
    """A UNet whose first call in 16 bits makes infinity of its first row."""

    def __init__(self, healthy: Pipeline) -> None:
        super().__init__(healthy, lambda _latents: None)
        self._has_overflowed = False

    def predict_noise(self, *given: Any, **named: Any) -> torch.Tensor:
        output = super().predict_noise(*given, **named).clone()
        if not self._has_overflowed:
            self._has_overflowed = True
            output[0] = float("inf")
        return output


def test_numbers_that_fp32_does_not_mend_fail_and_are_counted(pipeline: Pipeline) -> None:
    """Latents that are not finite in fp32 fail their job once, and no other one."""
    spoiled = iter([True])

    def spoil(latents: torch.Tensor) -> None:
        if next(spoiled, False):
            latents.fill_(float("nan"))

    engine = make_engine(HookedPipeline(pipeline, spoil))
    outcomes = run(engine, [small_job(name, random.Random(name)) for name in ("bad", "good")])
    assert outcomes["bad"] == Failed("bad", "generation-failed")
    assert isinstance(outcomes["good"], Finished)
    assert (engine.stats.num_not_finite, engine.stats.num_failed) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("max_batch", [1, 8])
def test_a_slot_never_shows_who_had_it_before(pipeline: Pipeline, max_batch: int) -> None:
    """1,000 rows join and 1,000 leave, some by abort, at random steps, over slots full of NaN.

    Each has its own prompt, picture, seed, guidance, strength and steps, and each picture is that
    of its run alone: to the byte where rows run one by one, else within a level.
    """
    rng = random.Random(0)
    jobs = [small_job(str(number), rng) for number in range(1000)]
    scheduler = Scheduler(max_batch=max_batch, max_waiting=2000)
    engine = Engine({"": pipeline}, scheduler, poisons_freed_slots=True)
    outcomes, left = {}, list(jobs)
    while left or engine.has_work():
        for _ in range(rng.randint(0, 3)):
            if left:
                engine.add(left.pop())
            if rng.random() < 0.02:
                engine.abort(jobs[len(left)].id)
        for outcome in engine.step():
            assert isinstance(outcome, Finished)
            outcomes[outcome.job_id] = picture(outcome)
    assert len(outcomes) + engine.stats.num_aborted == 1000
    assert engine.stats.num_aborted > 5
    assert engine.stats.max_batch_seen >= min(max_batch, 6)
    alone = make_engine(pipeline)
    for job in jobs:
        if job.id in outcomes:
            expected = picture(run(alone, [job])[job.id])
            assert levels_apart(outcomes[job.id], expected) <= (0 if max_batch == 1 else 1)


@pytest.mark.slow
def test_a_thousand_neighbours_of_failing_rows_are_unharmed(pipeline: Pipeline) -> None:
    """Every ninth row fails, at its prompt, in the shared UNet call, or by NaN; no other one does.

    Pictures equal those of a run without the failing rows within a level, most to the byte.
    """

    class Marking(HookedPipeline):
        """Marks the latents of a row whose picture is of one colour."""

        def encode_image(self, pixels: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
            clean = super().encode_image(pixels, *others, **named).clone()
            for colour, mark in ((1, UNET_FAILS), (2, float("inf"))):
                clean[(pixels == colour).flatten(1).all(1), 0, 0, 0] = mark
            return clean

    rng = random.Random(1)
    neighbours = [small_job(f"good-{number}", rng) for number in range(1000)]
    mixed: list[Job] = []
    for number, job in enumerate(neighbours):
        mixed.append(job)
        if number % 8 == 0:
            mixed.append(_bad_job(f"bad-{number}", rng, number // 8 % 3))

    def shared_call_fails(latents: torch.Tensor) -> None:
        if bool(((latents.abs() > UNET_FAILS / 100) & latents.isfinite()).any()):
            raise RuntimeError("a row that cannot be denoised")

    expected = run_all(make_engine(pipeline, max_batch=8), neighbours)
    engine = make_engine(Marking(pipeline, shared_call_fails), max_batch=8)
    outcomes = run_all(engine, mixed)
    bad = [outcomes.pop(job.id) for job in mixed if job.id.startswith("bad")]
    assert len(bad) == 125
    assert all(isinstance(outcome, Failed) for outcome in bad)
    apart = [
        levels_apart(picture(outcomes[job.id]), picture(expected[job.id])) for job in neighbours
    ]
    assert len(apart) == 1000
    assert max(apart) <= 1
    assert np.mean(np.equal(apart, 0)) > 0.7


def _bad_job(job_id: str, rng: random.Random, kind: int) -> Job:
    usual = small_job(job_id, rng, prompt="poison" if kind == 0 else "fine")
    usual.image[:] = kind
    return usual


def run_all(engine: Engine, jobs: list[Job]) -> dict[str, Finished | Failed]:
    """Run more jobs than may wait at once."""
    outcomes: dict[str, Finished | Failed] = {}
    for start in range(0, len(jobs), 32):
        outcomes |= run(engine, jobs[start : start + 32])
    return outcomes
