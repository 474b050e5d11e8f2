"""Diffusers as people run it: one request after another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

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
from benchmarks.core.setup import Setup
from benchmarks.core.timing import Call
from models.lcm import LCMSchedule, timesteps
from service.front.images.codec import encode_image
from service.loadgen.images import photograph
from service.protocol.jobs import Job, Pixels


class DiffusersLane:
    """`LatentConsistencyModelImg2ImgPipeline`, one request at a time, as behind a lock.

    For SDXL it is `StableDiffusionXLImg2ImgPipeline`. Its strength reduces the number of steps, so
    it gets the timesteps of the other lanes instead.
    """

    def __init__(
        self, setup: Setup, name: str = "diffusers", *, is_compiled: bool = False,
        is_tiny: bool = False,
    ) -> None:  # fmt: skip
        """Load the pipeline.

        `is_compiled` follows diffusers' own advice: channels-last, UNet and autoencoder compiled
        with max-autotune. `is_tiny` uses the `AutoencoderTiny` of the setup.
        """
        diffusers.logging.set_verbosity_error()
        diffusers.logging.disable_progress_bar()
        self.name = name
        self.unet_calls = self.unet_rows = 0
        self._setup = setup
        parts: dict[str, Any] = {}
        if is_tiny and setup.tiny is not None:
            parts["vae"] = AutoencoderTiny.from_pretrained(setup.tiny, dtype=setup.dtype)
        kind: Any = (
            StableDiffusionXLImg2ImgPipeline
            if setup.is_sdxl
            else LatentConsistencyModelImg2ImgPipeline
        )
        pipeline = kind.from_pretrained(
            setup.checkpoint, dtype=setup.dtype, local_files_only=True, **parts
        ).to(setup.device)
        pipeline.set_progress_bar_config(disable=True)
        if is_compiled:
            compiled = partial(torch.compile, mode="max-autotune")
            pipeline.unet.to(memory_format=torch.channels_last)
            pipeline.vae.to(memory_format=torch.channels_last)
            pipeline.unet = compiled(pipeline.unet, fullgraph=True)
            pipeline.vae.encode = compiled(pipeline.vae.encode)
            pipeline.vae.decode = compiled(pipeline.vae.decode)
        self.pipeline = pipeline

    def picture(self, job: Job) -> Pixels:
        params = job.params
        steps: dict[str, Any] = {
            "num_inference_steps": params.num_inference_steps, "strength": params.strength,
        }  # fmt: skip
        if self._setup.is_sdxl:
            schedule = LCMSchedule.from_config(self.pipeline.scheduler.config)
            steps = {"timesteps": timesteps(schedule, *steps.values()), "strength": 1.0}
        output = self.pipeline(
            params.prompt,
            image=Image.fromarray(job.image),
            **steps,
            guidance_scale=params.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(params.seeds[0]),
        )
        return np.asarray(output.images[0])

    def run(self, jobs: Sequence[Job]) -> list[float]:
        started, seconds = time.perf_counter(), []
        for job in jobs:
            self.picture(job)
            self._setup.synchronise()
            seconds.append(time.perf_counter() - started)
        self.unet_calls = self.unet_rows = sum(job.params.num_inference_steps for job in jobs)
        return seconds

    def stages(self, size: int) -> dict[str, Call]:
        pipeline, setup = self.pipeline, self._setup

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device=setup.device, dtype=setup.dtype)

        pixels = torch.from_numpy(photograph(size, size)).permute(2, 0, 1)[None]
        image = (pixels / 127.5 - 1).to(setup.device, setup.dtype)  # [1, 3, H, W]
        side = size // pipeline.vae_scale_factor
        latents = random(1, pipeline.unet.config.in_channels, side, side)
        prompt = partial(
            pipeline.encode_prompt,
            make_job(0).params.prompt,
            device=setup.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        with torch.no_grad():
            embeds, *rest = prompt()
        added = None
        if setup.is_sdxl:
            ids = torch.tensor([[size, size, 0, 0, size, size]], device=setup.device)
            added = {"text_embeds": rest[1], "time_ids": ids.to(setup.dtype)}
        unet = partial(
            pipeline.unet,
            latents,
            torch.tensor(999, device=setup.device),  # without rows, as in the pipeline
            embeds,
            timestep_cond=random(1, pipeline.unet.config.time_cond_proj_dim),
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
