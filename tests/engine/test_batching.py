"""Encodes and decodes of rows that join or leave together: one call, and pictures as alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.pipeline import Pipeline
from service.engine.engine import Engine
from service.engine.scheduler import MAX_ADMISSIONS, MAX_RETIREMENTS, Scheduler
from service.protocol.jobs import Failed, Finished, Job
from tests.support.checkpoints import write_taesd
from tests.support.engine_runs import levels_apart, load, make_engine, make_job, picture, run

MARK = 200
"""The brightness of a picture that cannot be encoded or decoded."""


class CountingPipeline(Pipeline):
    """Counts the rows of each encode and decode; a test may let them fail."""

    def __init__(self, healthy: Pipeline) -> None:
        vars(self).update(vars(healthy))
        self.encodes: list[tuple[int, str]] = []
        self.decodes: list[tuple[int, str]] = []
        self.before_encode: Callable[[torch.Tensor], None] = lambda _pixels: None
        self.before_decode: Callable[[torch.Tensor], None] = lambda _latents: None

    def encode_image(self, pixels: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
        self.before_encode(pixels)
        self.encodes.append((len(pixels), others[-1]))
        return super().encode_image(pixels, *others, **named)

    def decode_latents(self, latents: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
        self.before_decode(latents)
        self.decodes.append((len(latents), others[-1]))
        return super().decode_latents(latents, *others, **named)


@pytest.fixture
def pipeline(kl_checkpoint: Path) -> CountingPipeline:
    return CountingPipeline(load(kl_checkpoint))


def jobs_of(count: int, steps: int = 4) -> list[Job]:
    """Jobs that run side by side, all with as many steps."""
    return [
        make_job(f"job-{n}", prompt=f"thing {n}", steps=steps, seeds=(n,)) for n in range(count)
    ]


def assert_as_alone(outcomes: dict[str, Finished | Failed], jobs: list[Job], alone: Engine) -> None:
    for job in jobs:
        expected = picture(run(alone, [job])[job.id])
        assert levels_apart(picture(outcomes[job.id]), expected) <= 1


@pytest.mark.parametrize("buckets", [(), (1, 2, 4, 8)])
@pytest.mark.parametrize("checkpoint", ["tiny_checkpoint", "kl_checkpoint"])
def test_rows_that_join_and_leave_together_share_a_call(
    checkpoint: str, buckets: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    """Two at most are encoded at once, four decoded; padded or not, each picture is as alone."""
    pipeline, jobs = CountingPipeline(load(request.getfixturevalue(checkpoint))), jobs_of(8)
    pipeline.buckets = buckets
    outcomes = run(make_engine(pipeline, max_batch=8), jobs)
    assert {rows for rows, _ in pipeline.encodes} == {MAX_ADMISSIONS}
    assert sum(rows for rows, _ in pipeline.decodes) == 8
    assert max(rows for rows, _ in pipeline.decodes) > 1
    assert_as_alone(outcomes, jobs, make_engine(pipeline))


def test_on_a_batch_of_one_all_is_done_one_by_one(pipeline: CountingPipeline) -> None:
    """In the CPU's default mode, where batches gain nothing, no call has two rows."""
    run(make_engine(pipeline), jobs_of(4))
    assert {rows for rows, _ in pipeline.encodes + pipeline.decodes} == {1}


def test_three_rows_fill_a_bucket_of_four(pipeline: CountingPipeline) -> None:
    """The last row stands in for the fourth, whose picture is left."""
    (job,) = [make_job(seeds=(1, 2, 3))]
    expected = run(make_engine(pipeline, max_batch=4), [job])["job"]
    pipeline.decodes.clear()
    pipeline.buckets = (1, 2, 4)
    outcome = run(leaving_together(pipeline), [job])["job"]
    assert pipeline.decodes == [(4, "full")]
    assert isinstance(outcome, Finished)
    assert isinstance(expected, Finished)
    assert levels_apart(outcome.images, expected.images) <= 1


def leaving_together(pipeline: Pipeline) -> Engine:
    """An engine that admits up to eight rows before one step, so that all leave at once."""

    class Eager(Scheduler):
        def _admit(self) -> list[Any]:
            return [row for _ in range(4) for row in super(Eager, self)._admit()]

    return Engine({"": pipeline}, Eager(max_batch=8, max_waiting=64))


def test_rows_beyond_the_cap_are_decoded_at_the_next_step(pipeline: CountingPipeline) -> None:
    """Rows in flight wait for four decodes at most, and those left over come out all the same."""
    engine, jobs = leaving_together(pipeline), jobs_of(8)
    outcomes = run(engine, jobs)
    assert [rows for rows, _ in pipeline.decodes] == [MAX_RETIREMENTS] * 2
    assert engine.num_running == 0
    assert_as_alone(outcomes, jobs, make_engine(pipeline))


def test_autoencoders_do_not_mix(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Rows of the full and of the tiny one share UNet calls, and no encode or decode."""
    from models.loader import CheckpointFiles, load_pipeline  # noqa: PLC0415

    files = CheckpointFiles(tiny_checkpoint, tiny=write_taesd(tmp_path / "tiny"))
    pipeline = CountingPipeline(load_pipeline(files, device="cpu", dtype=torch.float32))
    jobs = jobs_of(4)
    for number in (1, 2):
        params = dataclasses.replace(jobs[number].params, autoencoder="tiny")
        jobs[number] = dataclasses.replace(jobs[number], params=params)
    engine = leaving_together(pipeline)
    outcomes = run(engine, jobs)
    assert engine.stats.max_batch_seen == 4
    assert sorted(pipeline.decodes) == [(2, "full"), (2, "tiny")]
    assert_as_alone(outcomes, jobs, make_engine(pipeline))


def fail_on_marked(error: Exception) -> Callable[[torch.Tensor], None]:
    def check(pixels: torch.Tensor) -> None:
        if bool((pixels == MARK).flatten(1).all(1).any()):
            raise error

    return check


@pytest.mark.parametrize("error", [ValueError("bad"), torch.OutOfMemoryError("out of memory")])
def test_a_row_that_cannot_be_encoded_fails_alone(
    pipeline: CountingPipeline, error: Exception
) -> None:
    """Whoever would have shared its encode is encoded without it, and has the usual picture."""
    good, bad = jobs_of(1)[0], make_job("bad", seeds=(9,))
    bad.image[:] = MARK
    pipeline.before_encode = fail_on_marked(error)
    engine = make_engine(pipeline, max_batch=4)
    outcomes = run(engine, [good, bad])
    assert isinstance(outcomes["bad"], Failed)
    assert_as_alone(outcomes, [good], make_engine(pipeline))
    assert (engine.stats.num_failed, engine.num_running) == (1, 0)


def test_where_memory_has_no_room_for_a_batch_each_is_decoded_alone(
    pipeline: CountingPipeline,
) -> None:
    """More than one decode at once does not fit: nobody fails, and the fault is counted."""

    def only_one_fits(latents: torch.Tensor) -> None:
        if len(latents) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    pipeline.before_decode = only_one_fits
    engine, jobs = leaving_together(pipeline), jobs_of(4)
    outcomes = run(engine, jobs)
    assert engine.stats.num_out_of_memory >= 1
    assert engine.stats.num_failed == 0
    assert_as_alone(outcomes, jobs, make_engine(pipeline))


def test_a_decode_that_fails_fails_its_own_row(pipeline: CountingPipeline) -> None:
    """Of four that leave together one cannot be decoded: the three others are as ever."""
    jobs, seen = jobs_of(4), list[torch.Tensor]()
    expected = run(make_engine(pipeline), jobs)

    def third_fails(latents: torch.Tensor) -> None:
        seen.extend(latents if not seen else [])
        if any(torch.equal(row, seen[2]) for row in latents):
            raise ValueError("a row that cannot be decoded")

    pipeline.before_decode = third_fails
    outcomes = run(leaving_together(pipeline), jobs)
    failed = [job.id for job in jobs if isinstance(outcomes[job.id], Failed)]
    assert failed == ["job-2"]
    for job in jobs:
        if job.id not in failed:
            difference = levels_apart(picture(outcomes[job.id]), picture(expected[job.id]))
            assert difference <= 1


def test_pictures_do_not_share_memory(pipeline: CountingPipeline) -> None:
    """Each outcome owns its pictures: what a caller does to one leaves the others."""
    outcomes = run(leaving_together(pipeline), jobs_of(2))
    first, second = (picture(outcomes[f"job-{number}"]) for number in range(2))
    assert not np.shares_memory(first, second)
