"""What the engine promises about neighbours: none of them can be seen in a picture."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from models.lcm import guidance_embedding
from models.pipeline import Conditioning, Pipeline
from models.text_encoder import PromptEmbeds
from service.engine.engine import Engine
from service.engine.scheduler import Scheduler
from service.protocol.jobs import Failed, Finished, Job, Progress
from tests.support.engine_runs import SIDE, levels_apart, load, make_engine, make_job, picture, run


class FaultyPipeline(Pipeline):
    """A pipeline that fails where it is told to: a row is known by its guidance embedding."""

    def __init__(self, healthy: Pipeline) -> None:
        vars(self).update(vars(healthy))
        self.poisoned_prompt = "poison"
        self.poisoned_cond: torch.Tensor | None = None
        self.makes_nan = False
        self.makes_infinite_pixels = False

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None = None, adapter: str = ""
    ) -> PromptEmbeds:
        if prompt == self.poisoned_prompt:
            raise RuntimeError("a prompt that cannot be encoded")
        return super().encode_prompt(prompt, negative_prompt, adapter)

    def predict_noise(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
        adapters: Sequence[str] = (),
        *,
        in_fp32: bool = False,
    ) -> torch.Tensor:
        output = super().predict_noise(latents, timesteps, conditioning, adapters, in_fp32=in_fp32)
        timestep_cond = conditioning.timestep_cond
        assert timestep_cond is not None
        if self.poisoned_cond is not None:
            is_poisoned = (timestep_cond == self.poisoned_cond).all(1)
            if self.makes_infinite_pixels:
                output = output.masked_fill(is_poisoned[:, None, None, None], 1e4)
            elif self.makes_nan:
                output = output.masked_fill(is_poisoned[:, None, None, None], float("nan"))
            elif bool(is_poisoned.any()):
                raise RuntimeError("a row that cannot be denoised")
        return output

    def decode_latents(
        self, latents: torch.Tensor, autoencoder: str = "full", *, in_fp32: bool = False
    ) -> torch.Tensor:
        pixels = super().decode_latents(latents, autoencoder, in_fp32=in_fp32)
        if self.makes_infinite_pixels:  # as an autoencoder in 16 bits that overflows
            overflows = latents.abs().flatten(1).amax(1) > 1e4  # [B]
            pixels = pixels.masked_fill(overflows[:, None, None, None], float("inf"))
        return pixels


def mixed_jobs(count: int) -> list[Job]:
    """Jobs that differ in everything but their shape."""
    rng = random.Random(0)
    return [
        make_job(
            f"job-{index}",
            prompt=f"thing {index}",
            steps=rng.randint(4, 9),
            strength=rng.choice([0.3, 0.5, 0.8, 1.0]),
            guidance=rng.uniform(0.5, 20),
            seeds=(rng.randrange(10**9),),
        )
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> Pipeline:
    return load(tiny_checkpoint)


def alone(pipeline: Pipeline, job: Job) -> Finished | Failed:
    return run(make_engine(pipeline), [job])[job.id]


@pytest.mark.parametrize("checkpoint", ["tiny_checkpoint", "kl_checkpoint"])
@pytest.mark.parametrize("max_batch", [4, 8])
def test_a_picture_does_not_depend_on_who_shares_its_batch(
    checkpoint: str, max_batch: int, request: pytest.FixtureRequest
) -> None:
    """With neighbours that join and leave at each step, a picture is within 1 level of alone."""
    pipeline = load(request.getfixturevalue(checkpoint))
    jobs = mixed_jobs(10)
    expected = {job.id: picture(alone(pipeline, job)) for job in jobs}
    engine = make_engine(pipeline, max_batch=max_batch)
    outcomes: dict[str, Finished | Failed] = {}
    waiting = list(jobs)
    while waiting or engine.has_work():
        if waiting:  # one joins before every step
            engine.add(waiting.pop())
        for outcome in engine.step():
            assert isinstance(outcome, Finished)
            outcomes[outcome.job_id] = outcome
    assert engine.stats.max_batch_seen >= 4, "no batch of four was run: nothing was shown"
    for job in jobs:
        assert levels_apart(picture(outcomes[job.id]), expected[job.id]) <= 1


def test_on_a_bucket_of_one_pictures_are_byte_equal_under_load(pipeline: Pipeline) -> None:
    """In the CPU's default mode load changes no bit of a picture."""
    jobs = mixed_jobs(4)
    expected = {job.id: picture(alone(pipeline, job)) for job in jobs}
    outcomes = run(make_engine(pipeline), jobs)
    for job in jobs:
        np.testing.assert_array_equal(picture(outcomes[job.id]), expected[job.id])


def test_a_job_of_several_rows_equals_its_rows_alone(pipeline: Pipeline) -> None:
    """Each picture of a job is that of its own seed, in the order of the seeds."""
    job = make_job(seeds=(5, 6, 7))
    outcome = run(make_engine(pipeline, max_batch=4), [job])["job"]
    assert isinstance(outcome, Finished)
    assert outcome.images.shape == (3, SIDE, SIDE, 3)
    for index, seed in enumerate(job.params.seeds):
        single = picture(alone(pipeline, make_job(seeds=(seed,), image=job.image)))
        assert levels_apart(outcome.images[index], single) <= 1


def test_seeds_equal_in_their_low_bits_give_equal_pictures(pipeline: Pipeline) -> None:
    """As is documented, the CPU generator of torch reads the low 32 bits of a seed."""
    small = make_job(seeds=(5,))
    large = make_job(seeds=(5 + 2**32,), image=small.image)
    np.testing.assert_array_equal(picture(alone(pipeline, small)), picture(alone(pipeline, large)))


@pytest.mark.parametrize("height", [512, 640, 1024])
@pytest.mark.parametrize("width", [512, 640, 1024])
def test_every_shape_gives_a_picture(pipeline: Pipeline, height: int, width: int) -> None:
    """All nine shapes work, square ones with least guidance and strength, others with most."""
    guidance, strength, steps = (0.5, 0.1, 16) if height == width else (20.0, 1.0, 4)
    job = make_job(height=height, width=width, guidance=guidance, strength=strength, steps=steps)
    outcome = alone(pipeline, job)
    assert picture(outcome).shape == (height, width, 3)
    assert isinstance(outcome, Finished)
    assert outcome.num_steps_run == min(steps, int(50 * strength))


def test_a_picture_depends_on_each_of_its_inputs(pipeline: Pipeline) -> None:
    """Picture, prompt, seed, guidance, strength and steps all show: none is lost on the way."""
    usual = make_job(seeds=(5,))
    image = usual.image
    others = {
        "image": make_job(seeds=(5,), image=255 - image),
        "prompt": make_job(seeds=(5,), image=image, prompt="another thing altogether"),
        "seed": make_job(seeds=(6,), image=image),
        "guidance": make_job(seeds=(5,), image=image, guidance=1.5),
        "strength": make_job(seeds=(5,), image=image, strength=0.9),
        "steps": make_job(seeds=(5,), image=image, steps=7),
    }
    expected = picture(alone(pipeline, usual))
    for name, job in others.items():
        assert levels_apart(picture(alone(pipeline, job)), expected) > 2, name


def test_an_aborted_job_takes_no_further_unet_call(pipeline: Pipeline) -> None:
    """Between two steps an abort frees the slots at once; nothing comes out for the job."""
    engine = make_engine(pipeline)
    engine.add(make_job("gone", steps=16, strength=1.0))
    engine.add(make_job("next", steps=4))
    engine.step()
    assert engine.stats.num_unet_calls == 1
    engine.abort("gone")
    engine.abort("gone")  # twice is as once
    engine.abort("unknown")
    assert engine.num_running == 0
    outcomes = run(engine, [])
    assert list(outcomes) == ["next"]
    assert engine.stats.num_unet_calls == 1 + 4
    assert engine.stats.num_aborted == 1


@pytest.mark.parametrize("fault", ["prepare", "denoise", "nan", "infinite pixels"])
def test_a_failing_row_fails_alone(pipeline: Pipeline, fault: str) -> None:
    """One of eight rows fails, wherever it does; the other seven are as without it."""
    faulty = FaultyPipeline(pipeline)
    jobs = mixed_jobs(7)
    victim = make_job("victim", prompt="poison" if fault == "prepare" else "fine", guidance=3.25)
    expected = run(make_engine(pipeline, max_batch=8), jobs)
    if fault != "prepare":
        faulty.poisoned_cond = guidance_embedding([3.25], pipeline.guidance_dim or 0)[0]
        faulty.makes_nan = fault == "nan"
        faulty.makes_infinite_pixels = fault == "infinite pixels"
    engine = make_engine(faulty, max_batch=8)
    outcomes = run(engine, [*jobs[:3], victim, *jobs[3:]])
    assert outcomes.pop("victim") == Failed("victim", "generation-failed")
    assert outcomes.keys() == expected.keys()
    for job_id, outcome in outcomes.items():
        assert levels_apart(picture(outcome), picture(expected[job_id])) <= 1
    assert engine.num_running == 0


def test_the_rows_of_a_failing_job_fail_together(pipeline: Pipeline) -> None:
    """A job of several rows that cannot be denoised fails once, and frees all its slots."""
    faulty = FaultyPipeline(pipeline)
    faulty.poisoned_cond = guidance_embedding([3.25], pipeline.guidance_dim or 0)[0]
    engine = make_engine(faulty, max_batch=4)
    outcomes = run(engine, [make_job("rows", guidance=3.25, seeds=(1, 2, 3)), make_job("other")])
    assert outcomes["rows"] == Failed("rows", "generation-failed")
    assert isinstance(outcomes["other"], Finished)


def test_deadlines_and_a_full_queue_are_told(pipeline: Pipeline) -> None:
    """What is too late or too much is answered, not dropped."""
    now = 0.0
    engine = Engine({"": pipeline}, Scheduler(max_batch=1, max_waiting=64), clock=lambda: now)
    engine.add(make_job("late", timeout_s=5))
    engine.step()
    now = 6.0
    assert run(engine, []) == {"late": Failed("late", "deadline-exceeded")}
    assert engine.num_jobs == 0
    outcomes = run(engine, [make_job(f"{n}", timeout_s=0) for n in range(65)])
    assert outcomes["64"] == Failed("64", "overloaded")


def test_progress_is_reported_to_those_who_ask(pipeline: Pipeline) -> None:
    """A job that asks gets its step count after each step; another one gets none."""
    engine = make_engine(pipeline)
    engine.add(make_job("asks", steps=4, reports_progress=True))
    engine.add(make_job("silent", steps=4))
    outcomes = []
    while engine.has_work():
        outcomes += engine.step()
    progress = [outcome for outcome in outcomes if isinstance(outcome, Progress)]
    assert progress == [Progress("asks", step, 4) for step in (1, 2, 3, 4)]


def test_a_long_prompt_is_cut_and_counted(pipeline: Pipeline) -> None:
    """Tokens beyond the text encoder's length are counted for the caller to be told."""
    long = alone(pipeline, make_job(prompt="x" * 100))
    short = alone(pipeline, make_job(prompt="x" * 75))
    assert isinstance(long, Finished)
    assert isinstance(short, Finished)
    assert (long.num_tokens_dropped, short.num_tokens_dropped) == (25, 0)
