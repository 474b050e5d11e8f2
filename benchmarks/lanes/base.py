"""The lanes that are measured side by side, and diffusers as people run it.

All make the same picture of the same job: same checkpoint, dtype, device, seed, steps, strength and
guidance, pixels in and pixels out, no HTTP and no codec.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderTiny,
    LatentConsistencyModelImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from PIL import Image

from benchmarks.core.jobs import make_job
from benchmarks.core.setup import Place
from benchmarks.core.timing import Call
from models.lcm import LCMSchedule, timesteps
from service.bench.pictures import photograph
from service.front.images import encode_image
from service.jobs import GenerationParams, Job, Pixels


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
    """`LatentConsistencyModelImg2ImgPipeline`, a request at a time, as behind a lock.

    Of SDXL, which has none, its `StableDiffusionXLImg2ImgPipeline`: strength trims the count of
    steps there, so that it is told the timesteps of the other lanes.
    """

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
        kind: Any = (
            StableDiffusionXLImg2ImgPipeline
            if place.is_sdxl
            else LatentConsistencyModelImg2ImgPipeline
        )
        self.pipeline = kind.from_pretrained(
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
            **self._steps(params),
            guidance_scale=params.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(params.seeds[0]),
        )
        return np.asarray(output.images[0])

    def _steps(self, params: GenerationParams) -> dict[str, Any]:
        steps, strength = params.num_inference_steps, params.strength
        if not self._place.is_sdxl:
            return {"num_inference_steps": steps, "strength": strength}
        schedule = LCMSchedule.from_config(self.pipeline.scheduler.config)
        return {"timesteps": timesteps(schedule, steps, strength), "strength": 1.0}

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
            device=place.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        with torch.no_grad():
            embeds, *rest = prompt()
        added = None
        if place.is_sdxl:
            ids = torch.tensor([[size, size, 0, 0, size, size]], device=place.device)
            added = {"text_embeds": rest[1], "time_ids": ids.to(place.dtype)}
        guidance = _random(place, 1, pipeline.unet.config.time_cond_proj_dim)
        timestep = torch.tensor(999, device=place.device)  # of no rows, as in the pipeline
        unet = partial(
            pipeline.unet,
            latents,
            timestep,
            embeds,
            timestep_cond=guidance,
            added_cond_kwargs=added,
        )
        calls: dict[str, Call] = {
            "unet": unet,
            "encode": partial(pipeline.vae.encode, image),
            "decode": partial(pipeline.vae.decode, latents),
            "text": prompt,
            "copy": partial(pipeline.image_processor.postprocess, image),
            "codec": partial(encode_image, photograph(size, size)),
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


def _random(place: Place, *shape: int) -> torch.Tensor:
    return torch.randn(shape, device=place.device, dtype=place.dtype)
