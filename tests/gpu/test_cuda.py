"""On CUDA: captured and compiled forwards make the pictures of eager ones, and nothing is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.graphs import CUDA_BUCKETS, CudaGraphs, Forward
from models.loader import CheckpointFiles, load_pipeline
from models.pipeline import Pipeline
from service.engine.engine import Engine
from service.engine.scheduler import Scheduler
from service.engine.warming import Warming
from service.jobs import Failed, Finished
from tests.engine.runs import SIDE, levels_apart, load, make_engine, picture, run
from tests.engine.test_engine import mixed_jobs
from tests.engine.test_warming import Compilers, compiled_here, joined_step_by_step
from tests.models.test_graphs import Blur, rows

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of its parts among each other

MAX_BATCH = 8
SIZES = tuple(size for size in CUDA_BUCKETS if size <= MAX_BATCH)
LEVELS_FP16 = 12
"""How far a picture in fp16 may be from fp32 on the CPU: rounding, over all steps."""


def on_cuda(folder: Path, dtype: torch.dtype = torch.float16) -> Pipeline:
    return load_pipeline(
        CheckpointFiles(folder), device="cuda", dtype=dtype, max_batch=MAX_BATCH, is_compiled=True
    )


def engine_of(pipeline: Pipeline, warming: Warming | None = None) -> Engine:
    scheduler = Scheduler(max_batch=MAX_BATCH, max_waiting=64)
    return Engine({"": pipeline}, scheduler, warming=warming)


def warmed(pipeline: Pipeline, folder: Path, *, compiles: bool) -> Warming:
    """All forwards of the tests' shape captured, and compiled before where asked."""
    pipeline.buckets = SIZES
    if compiles:
        compilers = Compilers(compiled_here(pipeline, folder))
        warming = Warming(folder, SIZES, MAX_BATCH, compilers, CudaGraphs())
        warming.add(pipeline, SIDE, SIDE)
        warming.run()
        assert warming.num_warm == len(SIZES)
        return warming
    capturer = CudaGraphs()
    with torch.inference_mode():
        for size in reversed(SIZES):
            for forward, inputs in pipeline.forwards(SIDE, SIDE, size):
                forward.capture(capturer, *inputs)
    return Warming(folder, (), MAX_BATCH, Compilers())


def test_a_captured_graph_replays_with_new_inputs() -> None:
    """Each replay reads its own call's inputs; graphs of one pool do not disturb each other."""
    module = Blur().cuda()
    forward, capturer = Forward("blur", module), CudaGraphs()
    with torch.inference_mode():
        for count in (4, 1):
            forward.capture(capturer, *(tensor.cuda() for tensor in rows(count)))
        for count in (1, 4, 4, 1):
            inputs = tuple(tensor.cuda() for tensor in rows(count))
            torch.testing.assert_close(forward(*inputs), module(*inputs))


def test_fp16_on_cuda_is_near_fp32_on_the_cpu(kl_checkpoint: Path) -> None:
    """The default dtype of CUDA makes the picture of the oracle's arithmetic within rounding."""
    jobs = mixed_jobs(3)
    expected = run(make_engine(load(kl_checkpoint)), jobs)
    outcomes = run(engine_of(on_cuda(kl_checkpoint)), jobs)
    for job in jobs:
        assert levels_apart(picture(outcomes[job.id]), picture(expected[job.id])) <= LEVELS_FP16


@pytest.mark.parametrize("compiles", [False, True])
def test_join_and_leave_under_graphs(
    kl_checkpoint: Path, tmp_path: Path, *, compiles: bool
) -> None:
    """Captured, padded and, where asked, compiled: within 2 levels of eager alone, in fp32."""
    jobs = mixed_jobs(12)
    plain = on_cuda(kl_checkpoint, torch.float32)
    expected: dict[str, Finished | Failed] = {}
    for job in jobs:
        expected.update(run(engine_of(plain), [job]))
    pipeline = on_cuda(kl_checkpoint, torch.float32)
    engine = engine_of(pipeline, warmed(pipeline, tmp_path, compiles=compiles))
    outcomes = joined_step_by_step(engine, jobs)
    assert engine.stats.max_batch_seen >= 4
    for job in jobs:
        assert levels_apart(picture(outcomes[job.id]), picture(expected[job.id])) <= 2


def test_memory_is_level_over_many_pictures(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """After a warm-up, pictures leave no device memory behind."""
    pipeline = on_cuda(tiny_checkpoint)
    engine = engine_of(pipeline, warmed(pipeline, tmp_path, compiles=False))
    run(engine, mixed_jobs(8))
    before = torch.cuda.memory_allocated()
    for _ in range(10):
        run(engine, mixed_jobs(8))
    assert torch.cuda.memory_allocated() - before < 1 << 20


def test_a_sticky_error_ends_the_process() -> None:
    """A kernel that reads out of bounds poisons the device: torch raises what ends the engine."""
    script = """
import torch
try:
    index = torch.tensor([10**6], device="cuda")
    torch.zeros(4, device="cuda")[index].cpu()
except torch.AcceleratorError:
    print("sticky")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                           check=False)  # fmt: skip
    assert "sticky" in ended.stdout
