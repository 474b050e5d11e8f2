"""An engine whose forwards are compiled, captured and padded makes the pictures of a plain one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from models.pipeline import Pipeline
from models.runtime.aot import compile_package, package_path
from models.runtime.forward import CUDA_BUCKETS
from service.engine.engine import Engine
from service.engine.scheduler import Scheduler
from service.engine.warmup import Shape, Warmup
from service.protocol.jobs import Failed, Finished, Job
from tests.engine.test_engine import mixed_jobs
from tests.models.runtime.test_forward import RecordingCapturer
from tests.support.engine_runs import SIDE, levels_apart, load, make_engine, make_job, picture, run

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of its parts among each other

MAX_BATCH = 4
BUCKETS = (1, 2, 4)


class Compilers:
    """Compilers that end when a test says so, after `work`."""

    def __init__(self, work: Callable[[Sequence[Shape]], None] = lambda _shapes: None) -> None:
        self.started: list[Sequence[Shape]] = []
        self.is_over = True
        self._work = work

    def __call__(self, shapes: Sequence[Shape]) -> Compilers:
        self.started.append(shapes)
        self._work(shapes)
        return self

    def has_ended(self) -> bool:
        return self.is_over

    def wait(self) -> int:
        return 0


def compiled_here(pipeline: Pipeline, folder: Path) -> Callable[[Sequence[Shape]], None]:
    """What the compiler process does, in this one."""

    def work(shapes: Sequence[Shape]) -> None:
        for height, width in shapes:
            for size in (1, 2):
                for forward, inputs in pipeline.forwards(height, width, size):
                    path = package_path(folder, forward.name, forward.module, inputs)
                    compile_package(forward.module, inputs, path)

    return work


def engine_of(pipeline: Pipeline, warming: Warmup | None = None) -> Engine:
    scheduler = Scheduler(max_batch=MAX_BATCH, max_waiting=64)
    return Engine({"": pipeline}, scheduler, warming=warming)


def expected(folder: Path, jobs: list[Job]) -> dict[str, Finished | Failed]:
    outcomes = {}
    for job in jobs:
        outcomes.update(run(make_engine(load(folder)), [job]))
    return outcomes


def joined_step_by_step(engine: Engine, jobs: list[Job]) -> dict[str, Finished | Failed]:
    """Let a job join before every step."""
    waiting, outcomes = list(jobs), dict[str, Finished | Failed]()
    while waiting or engine.has_work():
        if waiting:
            engine.add(waiting.pop())
        for outcome in engine.step():
            assert isinstance(outcome, Finished)
            outcomes[outcome.job_id] = outcome
    return outcomes


def assert_same(outcomes: dict[str, Finished | Failed], folder: Path, jobs: list[Job]) -> None:
    for job_id, outcome in expected(folder, jobs).items():
        assert levels_apart(picture(outcomes[job_id]), picture(outcome)) <= 1


def test_padding_to_a_bucket_changes_no_picture(tiny_checkpoint: Path) -> None:
    """Rows that stand in for missing ones are run and left: pictures are as without them."""
    jobs, pipeline = mixed_jobs(7), load(tiny_checkpoint)
    pipeline.buckets = BUCKETS
    engine = engine_of(pipeline)
    outcomes = joined_step_by_step(engine, jobs)
    assert engine.stats.num_padded_rows > 0, "no bucket was padded: nothing was shown"
    assert_same(outcomes, tiny_checkpoint, jobs)


def test_a_large_shape_has_fewer_buckets(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """What is made ready ends at the rows that share a forward, which fill a bucket of their own.

    Of a row that guidance doubles there are half as many.
    """

    class Doubled(Pipeline):
        rows_per_row = 2

    def sizes(pipeline: Pipeline, height: int, width: int) -> list[int]:
        warming = Warmup(tmp_path, CUDA_BUCKETS, 8, Compilers())
        warming.add(pipeline, height, width)
        return [target.num_rows for target in warming._pending]

    pipeline = load(tiny_checkpoint)
    assert sizes(pipeline, 512, 512) == [1, 2, 4, 8]
    assert sizes(pipeline, 640, 640) == [1, 2, 4, 5]
    assert sizes(pipeline, 1024, 640) == [1, 2, 3]
    assert sizes(pipeline, 1024, 1024) == [1, 2]
    pipeline.__class__ = Doubled
    assert sizes(pipeline, 512, 512) == [1, 2, 4]
    assert sizes(pipeline, 1024, 1024) == [1]


@pytest.mark.slow
@pytest.mark.timeout(900)  # seven packages, of a quarter of a minute each on a good day
def test_join_and_leave_under_compiled_and_captured_forwards(
    kl_checkpoint: Path, tmp_path: Path
) -> None:
    """Compiled, captured by bucket and padded: equal pictures, and every call is a replay."""
    capturer, pipeline = RecordingCapturer(), load(kl_checkpoint)
    compilers = Compilers(compiled_here(pipeline, tmp_path))
    warming = Warmup(tmp_path, BUCKETS, MAX_BATCH, compilers, capturer)
    pipeline.buckets = BUCKETS
    warming.add(pipeline, SIDE, SIDE)
    warming.compile_all()
    warming.adopt_all()
    assert warming.num_warm == warming.num_targets == len(BUCKETS)
    engine = engine_of(pipeline, warming)
    assert engine.warm_rows() == {"": {f"{SIDE}x{SIDE}": list(BUCKETS)}}
    assert not engine.is_warming
    assert compilers.started == [[(SIDE, SIDE)]]
    jobs = mixed_jobs(7)
    assert_same(joined_step_by_step(engine_of(pipeline, warming), jobs), kl_checkpoint, jobs)
    run(engine_of(pipeline, warming), [*mixed_jobs(4), make_job("rows", seeds=(1, 2, 3, 4))])
    assert len(capturer.captured) == len(BUCKETS) + 1 + 2 + 3, "and texts, encoders, decoders"
    assert all(captured.num_replays > 0 for captured in capturer.captured)
    assert capturer.threads == {threading.get_ident()}
    again = Warmup(tmp_path, BUCKETS, MAX_BATCH, compilers)
    again.add(load(kl_checkpoint), SIDE, SIDE)
    again.compile_all()
    again.adopt_all()
    assert again.num_warm == len(BUCKETS)
    assert len(compilers.started) == 1, "the next start finds all packages where they were left"


def test_a_shape_that_comes_later_is_asked_of_a_compiler(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """It is served at once; one compiler runs at a time, and what it leaves out stays eager."""
    now, compilers, pipeline = 0.0, Compilers(), load(tiny_checkpoint)
    warming = Warmup(tmp_path, (1,), MAX_BATCH, compilers, clock=lambda: now)
    engine = engine_of(pipeline, warming)
    compilers.is_over = False
    assert isinstance(run(engine, [make_job("first")])["first"], Finished)
    now = 2.0
    assert isinstance(run(engine, [make_job("wider", width=256)])["wider"], Finished)
    assert compilers.started == [[(SIDE, SIDE)]]
    compilers.is_over = True
    for moment in (4.0, 6.0):
        now = moment
        run(engine, [make_job(f"at-{moment}")])
    assert compilers.started == [[(SIDE, SIDE)], [(SIDE, 256)]]
    now = 8.0
    run(engine, [make_job("last")])
    assert (warming.num_warm, warming.num_targets) == (0, 0)


def test_a_package_that_is_none_ends_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The shape stays eager and requests are served; the next start finds it gone, and makes it."""
    pipeline = load(tiny_checkpoint)
    for forward, inputs in pipeline.forwards(SIDE, SIDE, 1):
        package_path(tmp_path, forward.name, forward.module, inputs).write_bytes(b"no package")
    warming = Warmup(tmp_path, (1,), MAX_BATCH, Compilers())
    warming.add(pipeline, SIDE, SIDE)
    job = make_job()
    assert_same(run(engine_of(pipeline, warming), [job]), tiny_checkpoint, [job])
    assert (warming.num_warm, warming.num_targets) == (0, 0)
    assert len(list(tmp_path.iterdir())) == len(list(pipeline.forwards(SIDE, SIDE, 1))) - 1


class FailingCapturer:
    """Captures nothing, and says why."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def capture(self, *_: object) -> NoReturn:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: out of memory"),
        torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing"),
    ],
)
def test_a_shape_that_cannot_be_captured_stays_eager(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Neither a full device nor a call that a graph may not hold ends the engine."""
    pipeline, warming = to_be_captured(tiny_checkpoint, tmp_path, monkeypatch, error)
    job = make_job()
    assert_same(run(engine_of(pipeline, warming), [job]), tiny_checkpoint, [job])
    assert (warming.num_warm, warming.num_targets) == (0, 0)


def test_a_device_that_turns_out_sick_ends_the_engine(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error that sticks nothing is made any more: only a new process cures it."""
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    pipeline, warming = to_be_captured(tiny_checkpoint, tmp_path, monkeypatch, error)
    with pytest.raises(torch.AcceleratorError):
        run(engine_of(pipeline, warming), [make_job()])


def to_be_captured(
    checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> tuple[Pipeline, Warmup]:
    """A pipeline whose packages are there, and whose captures fail."""
    pipeline = load(checkpoint)
    monkeypatch.setattr("service.engine.warmup.load_package", lambda _path, module: module)
    warming = Warmup(folder, (1,), MAX_BATCH, Compilers(), FailingCapturer(error))
    warming.add(pipeline, SIDE, SIDE)
    for forward, inputs in pipeline.forwards(SIDE, SIDE, 1):
        package_path(folder, forward.name, forward.module, inputs).touch()
    return pipeline, warming


def test_a_package_that_does_not_equal_eager_is_not_used(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package is held against its module before it serves; one that is wrong never does."""
    pipeline = load(tiny_checkpoint)

    def leave_files(shapes: Sequence[Shape]) -> None:
        for height, width in shapes:
            for forward, inputs in pipeline.forwards(height, width, 1):
                package_path(tmp_path, forward.name, forward.module, inputs).touch()

    monkeypatch.setattr(
        "service.engine.warmup.load_package",
        lambda _path, module: lambda *inputs: 2 * module(*inputs) + 500,
    )
    warming = Warmup(tmp_path, (1,), MAX_BATCH, Compilers(leave_files))
    warming.add(pipeline, SIDE, SIDE)
    warming.compile_all()
    warming.adopt_all()
    assert not any(
        forward.is_compiled(*inputs) for forward, inputs in pipeline.forwards(SIDE, SIDE, 1)
    )
    job = make_job()
    assert_same(run(engine_of(pipeline, warming), [job]), tiny_checkpoint, [job])
