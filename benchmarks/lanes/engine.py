"""Our engine as a lane, in the process that measures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import Literal

import torch

from benchmarks.core.jobs import make_job
from benchmarks.core.setup import Setup
from benchmarks.core.timing import Call
from models.pipeline import Pipeline
from models.runtime.forward import Forward
from models.runtime.packing import pack
from models.runtime.transfer import transfer_of
from service.engine.builder import load_engine
from service.front.images.codec import encode_image
from service.loadgen.images import photograph
from service.protocol.jobs import Finished, Job, Pixels
from service.settings import EngineSettings, Tuning


class EngineLane:
    """Our engine, all jobs at once: step-level batching up to `max_batch`."""

    def __init__(
        self,
        setup: Setup,
        name: str,
        *,
        max_batch: int = 1,
        is_compiled: bool = False,
        has_graphs: bool = True,
        is_channels_last: bool = True,
        autoencoder: Literal["full", "tiny"] = "full",
        size: int = 512,
        tune: Tuning | None = None,
    ) -> None:
        """Load, and compile for pictures of `size` x `size` pixels if `is_compiled`.

        `has_graphs` captures compiled forwards as CUDA graphs; `tune` overrides the setup's.
        Raises RuntimeError if a forward was not compiled: the lane would not be what its name says.
        """
        self.name = name
        self.unet_calls = self.unet_rows = 0
        self._is_tiny = autoencoder == "tiny"
        settings = EngineSettings(
            **setup.model(),
            device=setup.device,
            dtype=setup.dtype_name,
            max_batch=max_batch,
            max_waiting=1024,
            max_waiting_per_caller=1024,
            compile="background" if is_compiled else "off",
            tune=tune or setup.tune,
            warmup_shapes=((size, size),),
            cache_dir=str(setup.cache),
        )
        self._engine, _ = load_engine(settings)
        self.pipeline: Pipeline = next(iter(self._engine.pipelines.values()))
        if is_compiled:
            self._compile(has_graphs=has_graphs)
        if not is_channels_last:
            for module in (self.pipeline.unet, self.pipeline.autoencoders["full"].vae):
                module.to(memory_format=torch.contiguous_format)

    def _compile(self, *, has_graphs: bool) -> None:
        warming = self._engine.warming
        if warming is None:
            raise RuntimeError(f"{self.name}: nothing is compiled")
        if not has_graphs:
            warming.capturer = None
            self.pipeline.buckets = ()  # nothing to pad for
        warming.compile_all()
        warming.adopt_all()
        if not 0 < warming.num_warm == warming.num_targets:
            raise RuntimeError(f"{self.name}: not every forward could be compiled; see the log")

    def picture(self, job: Job) -> Pixels:
        return self.pictures([job])[job.id]

    def pictures(self, jobs: Sequence[Job]) -> dict[str, Pixels]:
        """Make all at once; return them by the id of their job."""
        return {outcome.job_id: outcome.images[0] for outcome in self.finished(jobs)}

    def run(self, jobs: Sequence[Job]) -> list[float]:
        started = time.perf_counter()
        return [time.perf_counter() - started for _ in self.finished(jobs)]

    def finished(self, jobs: Sequence[Job]) -> Iterator[Finished]:
        """Yield outcomes as the engine produces them. Raises RuntimeError if a job fails."""
        stats = self._engine.stats
        before = stats.num_unet_calls, _num_rows(stats.batch_sizes)
        for job in jobs:
            self._engine.add(self._with_autoencoder(job))
        while self._engine.has_work():
            for outcome in self._engine.step():
                if not isinstance(outcome, Finished):
                    raise RuntimeError(f"a job did not end in a picture: {outcome}")
                yield outcome
        self.unet_calls = stats.num_unet_calls - before[0]
        self.unet_rows = _num_rows(stats.batch_sizes) - before[1]

    def stream(self, frames: Sequence[Job], in_flight: int) -> tuple[float, list[float]]:
        source, added = cycle(frames), dict[str, float]()
        latencies: list[float] = []
        started = 0.0

        def add(number: int) -> None:
            frame = replace(self._with_autoencoder(next(source)), id=f"frame-{number}")
            added[frame.id] = time.perf_counter()
            self._engine.add(frame)

        for number in range(in_flight):
            add(number)
        while len(latencies) < in_flight + len(frames):
            for outcome in self._engine.step():
                latencies.append(time.perf_counter() - added.pop(outcome.job_id))
                if len(latencies) == in_flight:  # the stream is full
                    started = time.perf_counter()
                add(in_flight + len(latencies))
        seconds = time.perf_counter() - started
        for job_id in added:
            self._engine.abort(job_id)
        return seconds, latencies[in_flight:]

    def _with_autoencoder(self, job: Job) -> Job:
        if not self._is_tiny:
            return job
        return replace(job, params=replace(job.params, autoencoder="tiny"))

    @property
    def padded_rows(self) -> int:
        """Padding rows of its UNet calls since it was loaded."""
        return self._engine.stats.num_padded_rows

    def stages(self, size: int, rows: int = 1) -> dict[str, Call]:
        """Return calls of each stage on `rows` rows; text, copy and codec are of one row."""
        kind = "tiny" if self._is_tiny else "full"
        names = {"denoise": "unet", f"encode-{kind}": "encode", f"decode-{kind}": "decode"}
        calls = {
            names[forward.name]: _random_call(forward, inputs, size)
            for forward, inputs in self.pipeline.forwards(size, size, rows)
            if forward.name in names
        }
        device, transfer = self.pipeline.device, transfer_of(self.pipeline.device)
        latents = torch.randn(1, *self.pipeline.latent_shape(size, size), device=device)
        decoded = torch.from_numpy(photograph(size, size))[None].to(device, torch.float32)
        text = partial(self.pipeline.prompts.encode, make_job(0).params.prompt)
        return {
            **calls,
            "text": torch.inference_mode()(text),
            "copy": torch.inference_mode()(lambda: transfer.to_host(pack(latents, decoded))),
            "codec": partial(encode_image, photograph(size, size)),
        }


def _random_call(forward: Forward, inputs: tuple[torch.Tensor, ...], size: int) -> Call:
    """Call a forward on random numbers and a photograph: on zeros a GPU draws less power."""
    photo = torch.from_numpy(photograph(size, size))

    def filled(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.uint8:
            return photo.expand(tensor.shape).contiguous().to(tensor.device)
        return torch.randn_like(tensor) if tensor.ndim == 4 else tensor

    return torch.inference_mode()(partial(forward, *map(filled, inputs)))


def _num_rows(batch_sizes: Sequence[int]) -> int:
    return sum(rows * count for rows, count in enumerate(batch_sizes, start=1))
