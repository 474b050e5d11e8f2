"""The lanes that are measured side by side: diffusers as people run it, and this project's engine.

All make the same picture of the same job: same checkpoint, dtype, device, seed, steps, strength and
guidance, pixels in and pixels out, no HTTP and no codec.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderTiny, LatentConsistencyModelImg2ImgPipeline
from PIL import Image

from benchmarks.place import Place
from benchmarks.requests import make_job, tiny_of
from benchmarks.timing import Call
from models.graphs import Forward
from models.pipeline import Pipeline
from service.bench.pictures import photograph
from service.engine.engine import Engine
from service.engine.loading import load_engine
from service.jobs import Finished, Job, Pixels
from service.settings import EngineSettings


class Lane(Protocol):
    """A way to make pictures. `run` makes those of all jobs and returns the seconds of each.

    `unet_calls` and `unet_rows` are those of the last run.
    """

    name: str
    unet_calls: int
    unet_rows: int

    def run(self, jobs: Sequence[Job]) -> list[float]: ...

    def picture(self, job: Job) -> Pixels: ...


class PartedLane(Lane, Protocol):
    """A lane whose parts can be timed, each on one row of `size` x `size` pixels."""

    def parts(self, size: int) -> dict[str, Call]: ...


class DiffusersLane:
    """`LatentConsistencyModelImg2ImgPipeline`, a request at a time, as behind a lock."""

    def __init__(
        self,
        place: Place,
        name: str = "diffusers, eager",
        *,
        is_tuned: bool = False,
        is_tiny: bool = False,
    ) -> None:
        """`is_tuned` is diffusers' own advice: channels-last, UNet and autoencoder compiled.

        `is_tiny` takes the `AutoencoderTiny` of the place instead of the checkpoint's own.
        """
        diffusers.logging.set_verbosity_error()
        diffusers.logging.disable_progress_bar()
        self.name = name
        self.unet_calls = self.unet_rows = 0
        self._place = place
        parts: dict[str, Any] = {}
        if is_tiny and place.tiny is not None:
            parts["vae"] = AutoencoderTiny.from_pretrained(place.tiny, dtype=place.dtype)
        self.pipeline: Any = LatentConsistencyModelImg2ImgPipeline.from_pretrained(
            place.checkpoint, dtype=place.dtype, local_files_only=True, **parts
        ).to(place.device)
        self.pipeline.set_progress_bar_config(disable=True)
        if is_tuned:
            tune(self.pipeline)

    def picture(self, job: Job) -> Pixels:
        params = job.params
        output = self.pipeline(
            params.prompt,
            image=Image.fromarray(job.image),
            num_inference_steps=params.num_inference_steps,
            strength=params.strength,
            guidance_scale=params.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(params.seeds[0]),
        )
        return np.asarray(output.images[0])

    def run(self, jobs: Sequence[Job]) -> list[float]:
        """Make one after another; each job has waited for those before it."""
        started, seconds = time.perf_counter(), []
        for job in jobs:
            self.picture(job)
            self._place.synchronise()
            seconds.append(time.perf_counter() - started)
        self.unet_calls = self.unet_rows = sum(job.params.num_inference_steps for job in jobs)
        return seconds

    def parts(self, size: int) -> dict[str, Call]:
        pipeline, place = self.pipeline, self._place
        pixels = torch.from_numpy(photograph(size, size)).permute(2, 0, 1)[None]
        image = (pixels / 127.5 - 1).to(place.device, place.dtype)  # [1, 3, H, W]
        side = size // pipeline.vae_scale_factor
        latents = _random(place, 1, pipeline.unet.config.in_channels, side, side)
        prompt = partial(
            pipeline.encode_prompt,
            make_job(0).params.prompt,
            place.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        with torch.no_grad():
            embeds, _ = prompt()
        guidance = _random(place, 1, pipeline.unet.config.time_cond_proj_dim)
        timestep = torch.tensor([999], device=place.device)
        unet = partial(pipeline.unet, latents, timestep, embeds, timestep_cond=guidance)
        calls: dict[str, Call] = {
            "unet": unet,
            "encode": partial(pipeline.vae.encode, image),
            "decode": partial(pipeline.vae.decode, latents),
            "text": prompt,
        }
        return {name: torch.no_grad()(call) for name, call in calls.items()}


def tune(pipeline: Any) -> None:
    """Follow diffusers' own best recipe: channels-last, UNet and autoencoder max-autotuned."""
    compiled = partial(torch.compile, mode="max-autotune")
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    pipeline.unet = compiled(pipeline.unet, fullgraph=True)
    pipeline.vae.encode = compiled(pipeline.vae.encode)
    pipeline.vae.decode = compiled(pipeline.vae.decode)


class EngineLane:
    """Our engine, all jobs at once: step-level batching where `max_batch` allows."""

    def __init__(
        self,
        place: Place,
        name: str,
        *,
        max_batch: int = 1,
        is_compiled: bool = False,
        has_graphs: bool = True,
        is_channels_last: bool = True,
        autoencoder: Literal["full", "tiny"] = "full",
        size: int = 512,
    ) -> None:
        """Load, and make ready for pictures of `size` x `size` where `is_compiled`.

        `has_graphs` captures what is compiled, where there is CUDA. Raises RuntimeError where a
        forward could not be made ready: the lane would not be what its name says.
        """
        self.name = name
        self.unet_calls = self.unet_rows = 0
        self._is_tiny = autoencoder == "tiny"
        self._engine = self._load(place, max_batch, size, is_compiled=is_compiled)
        self.pipeline: Pipeline = next(iter(self._engine._pipelines.values()))  # noqa: SLF001 - a bench looks inside
        if is_compiled:
            self._make_ready(has_graphs=has_graphs)
        if not is_channels_last:
            for module in (self.pipeline.unet, self.pipeline.autoencoders["full"].vae):
                module.to(memory_format=torch.contiguous_format)

    @staticmethod
    def _load(place: Place, max_batch: int, size: int, *, is_compiled: bool) -> Engine:
        settings = EngineSettings(
            **place.model(),
            device=place.device,
            dtype=place.dtype_name,
            max_batch=max_batch,
            max_waiting=1024,
            max_waiting_per_caller=1024,
            compile="background" if is_compiled else "off",
            hot_shapes=((size, size),),
            cache_dir=str(place.cache),
        )
        engine, _ = load_engine(settings)
        return engine

    def _make_ready(self, *, has_graphs: bool) -> None:
        warming = self._engine._warming  # noqa: SLF001 - as above
        if warming is None:
            raise RuntimeError(f"{self.name}: nothing is compiled")
        if not has_graphs:
            warming.capturer = None
            self.pipeline.buckets = ()  # nothing to pad for
        warming.run()
        if not 0 < warming.num_warm == warming.num_targets:
            raise RuntimeError(f"{self.name}: not every forward could be compiled; see the log")

    def picture(self, job: Job) -> Pixels:
        picture: Pixels = next(iter(self.pictures([job]).values()))
        return picture

    def pictures(self, jobs: Sequence[Job]) -> dict[str, Pixels]:
        """Make all at once; return them by the id of their job."""
        return {outcome.job_id: outcome.images[0] for outcome in self.finished(jobs)}

    def run(self, jobs: Sequence[Job]) -> list[float]:
        """Add all and step until all are done."""
        started = time.perf_counter()
        return [time.perf_counter() - started for _ in self.finished(jobs)]

    def finished(self, jobs: Sequence[Job]) -> Iterator[Finished]:
        """Yield what becomes of the jobs as it does. Raises RuntimeError for one that fails."""
        stats = self._engine.stats
        before = stats.num_unet_calls, _num_rows(stats.batch_sizes)
        for job in jobs:
            self._engine.add(tiny_of(job) if self._is_tiny else job)
        while self._engine.has_work():
            for outcome in self._engine.step():
                if not isinstance(outcome, Finished):
                    raise RuntimeError(f"a job did not end in a picture: {outcome}")
                yield outcome
        self.unet_calls = stats.num_unet_calls - before[0]
        self.unet_rows = _num_rows(stats.batch_sizes) - before[1]

    def parts(self, size: int) -> dict[str, Call]:
        kind = "tiny" if self._is_tiny else "full"
        names = {"denoise": "unet", f"encode-{kind}": "encode", f"decode-{kind}": "decode"}
        calls = {
            names[name]: call for name, call in self.forwards(size, 1).items() if name in names
        }
        text = partial(self.pipeline.prompts.encode, make_job(0).params.prompt)
        return {**calls, "text": torch.inference_mode()(text)}

    def forwards(self, size: int, rows: int) -> dict[str, Call]:
        """Return what runs on so many rows of `size` x `size` pixels, by its name."""
        pairs = self.pipeline.forwards(size, size, rows)
        return {forward.name: _call(forward, inputs, size) for forward, inputs in pairs}


def _call(forward: Forward, inputs: tuple[torch.Tensor, ...], size: int) -> Call:
    """Call a forward on random numbers and a photograph: on zeros a card draws less power."""
    photo = torch.from_numpy(photograph(size, size))

    def alive(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.uint8:
            return photo.expand(tensor.shape).to(tensor.device)
        return torch.randn_like(tensor) if tensor.ndim == 4 else tensor

    return torch.inference_mode()(partial(forward, *map(alive, inputs)))


def _num_rows(batch_sizes: Sequence[int]) -> int:
    return sum(rows * count for rows, count in enumerate(batch_sizes, start=1))


def _random(place: Place, *shape: int) -> torch.Tensor:
    return torch.randn(shape, device=place.device, dtype=place.dtype)
