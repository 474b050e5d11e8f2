"""On CUDA: captured and compiled forwards make the pictures of eager ones, and nothing is left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend

from models.loader import CheckpointFiles, load_pipeline
from models.pipeline import Pipeline
from models.runtime.aot import compile_package, load_package
from models.runtime.attention import BACKENDS, attending_by, pick_backend
from models.runtime.forward import CUDA_BUCKETS, CudaGraphs, Forward
from models.runtime.transfer import CudaMoment, CudaTransfer, to_device
from service.engine.engine import Engine
from service.engine.scheduler import Scheduler
from service.engine.warmup import Warmup
from service.protocol.jobs import Failed, Finished
from tests.engine.test_engine import mixed_jobs
from tests.engine.test_warmup import Compilers, compiled_here, joined_step_by_step
from tests.models.runtime.test_attention import Attending
from tests.models.runtime.test_forward import Blur, rows
from tests.support.engine_runs import SIDE, levels_apart, load, make_engine, picture, run

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of its parts among each other

MAX_BATCH = 8
SIZES = tuple(size for size in CUDA_BUCKETS if size <= MAX_BATCH)
LEVELS_FP16 = 12
"""How far a picture in fp16 may be from fp32 on the CPU: rounding, over all steps."""


def on_cuda(folder: Path, dtype: torch.dtype = torch.float16) -> Pipeline:
    return load_pipeline(
        CheckpointFiles(folder), device="cuda", dtype=dtype, max_batch=MAX_BATCH, is_compiled=True
    )


def engine_of(pipeline: Pipeline, warming: Warmup | None = None) -> Engine:
    scheduler = Scheduler(max_batch=MAX_BATCH, max_waiting=64)
    return Engine({"": pipeline}, scheduler, warming=warming)


def warmed(pipeline: Pipeline, folder: Path, *, compiles: bool) -> Warmup:
    """All forwards of the tests' shape captured, and compiled before where asked."""
    pipeline.buckets = SIZES
    if compiles:
        compilers = Compilers(compiled_here(pipeline, folder))
        warming = Warmup(folder, SIZES, MAX_BATCH, compilers, CudaGraphs())
        warming.add(pipeline, SIDE, SIDE)
        warming.compile_all()
        warming.adopt_all()
        assert warming.num_warm == len(SIZES)
        return warming
    capturer = CudaGraphs()
    with torch.inference_mode():
        for size in reversed(SIZES):
            for forward, inputs in pipeline.forwards(SIDE, SIDE, size):
                forward.capture(capturer, *inputs)
    return Warmup(folder, (), MAX_BATCH, Compilers())


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


def test_the_picked_attention_equals_the_plain_one() -> None:
    """Whichever kernel is the fastest on this card, in fp16, on heads as wide as SD 1.5 has."""
    module, given = Attending(), torch.randn(2, 8, 1024, 40, device="cuda", dtype=torch.float16)
    picked = pick_backend(module, (given,))
    assert picked in BACKENDS["cuda"]
    with torch.inference_mode():
        with attending_by(SDPBackend.MATH):
            expected = module(given)
        with attending_by(picked):
            torch.testing.assert_close(module(given), expected, rtol=0.01, atol=0.01)


@pytest.mark.slow
def test_a_package_of_autotuned_kernels_equals_its_module(tmp_path: Path) -> None:
    """What REFINE_TUNE=max makes reads the module's weights, and holds for any number of rows."""
    module, path = Blur().cuda(), tmp_path / "blur.pt2"
    compile_package(module, tuple(part.cuda() for part in rows(2)), path, autotunes=True)
    made = load_package(path, module)
    with torch.inference_mode():
        for count in (2, 3, 7):
            inputs = tuple(part.cuda() for part in rows(count))
            torch.testing.assert_close(made(*inputs), module(*inputs), rtol=1e-3, atol=1e-3)


def test_what_goes_to_the_device_and_back_is_the_same() -> None:
    """Through pinned memory, of any layout; the host's own may change at once."""
    transfer, given = CudaTransfer(), torch.randn(64, 64)
    expected = given.T.clone()
    arrived = to_device(given.T, torch.device("cuda"), torch.float64)
    given.zero_()
    back = transfer.to_host(arrived.float())
    assert back.is_pinned()
    moment = transfer.moment()
    moment.wait()
    assert moment.has_come()
    torch.testing.assert_close(back, expected)
    assert to_device(given[:0], torch.device("cuda")).shape == (0, 64)


def test_moments_are_the_device_s_own() -> None:
    """What the host has only asked for takes its time between two of them."""
    transfer, matrix = CudaTransfer(), torch.randn(4096, 4096, device="cuda")
    (matrix @ matrix).sum().item()  # so that its libraries are there
    first = transfer.moment()
    for _ in range(50):
        matrix = matrix @ matrix.clamp(-1, 1)
    last = transfer.moment()
    assert not last.has_come(), "the host has waited for the device"
    last.wait()
    assert last.ms_since(first) > 1


@pytest.fixture
def no_waits() -> Iterator[Callable[[str], None]]:
    """The detector of torch, of calls in which the host waits for the device."""
    yield torch.cuda.set_sync_debug_mode
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("is_captured", [False, True])
def test_no_step_waits_for_the_device(
    kl_checkpoint: Path, tmp_path: Path, no_waits: Callable[[str], None], *, is_captured: bool
) -> None:
    """From admission to the last picture no call synchronises: eager, captured, padded.

    With prompts that were embedded before; what a text encoder does is its library's.
    """
    pipeline = on_cuda(kl_checkpoint)
    warming = warmed(pipeline, tmp_path, compiles=False) if is_captured else None
    jobs = mixed_jobs(5)
    expected = run(engine_of(pipeline, warming), jobs)
    engine = engine_of(pipeline, warming)
    for job in jobs:
        engine.add(job)
    outcomes: dict[str, object] = {}
    no_waits("error")
    while engine.has_work():
        outcomes |= {outcome.job_id: outcome for outcome in engine.step()}
    no_waits("default")
    assert engine.stats.num_failed == 0
    for job in jobs:
        outcome = outcomes[job.id]
        assert isinstance(outcome, Finished)
        assert levels_apart(picture(outcome), picture(expected[job.id])) <= LEVELS_FP16


def test_the_host_is_ahead_of_the_device(kl_checkpoint: Path) -> None:
    """Equal pictures to those of a host that waits after every step, and over slots full of NaN."""

    class Waiting(CudaTransfer):
        def moment(self) -> CudaMoment:
            torch.cuda.synchronize()
            return super().moment()

    pipeline, jobs = on_cuda(kl_checkpoint, torch.float32), mixed_jobs(12)
    pictures = []
    for transfer in (Waiting(), CudaTransfer()):
        engine = Engine(
            {"": pipeline},
            Scheduler(max_batch=MAX_BATCH, max_waiting=64),
            transfer=transfer,
            poisons_freed_slots=True,
        )
        pictures.append(joined_step_by_step(engine, jobs))
    for job in jobs:
        waited, ahead = (outcomes[job.id] for outcomes in pictures)
        assert levels_apart(picture(waited), picture(ahead)) <= 2
        assert isinstance(ahead, Finished)
        assert min(ahead.times.encode_ms, ahead.times.denoise_ms, ahead.times.vae_ms) > 0


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
