"""StreamDiffusion's recipe for one user's stream of frames, written from arXiv 2312.12491.

Its stream batch keeps a frame at each of the N steps: a UNet call takes a new frame in at the
first step, moves the others one step on, and returns the one at the last. TAESD decodes; prompt
embeddings and noise are made once for a stream. Its residual guidance is not needed by a UNet with
a guidance embedding, and its filter of similar frames makes no frame faster. torch.compile replaces
its TensorRT engines, as in `diffusers-compiled`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.core.setup import Setup
from benchmarks.lanes.diffusers import DiffusersLane
from service.protocol.jobs import Job, Pixels


@dataclass(frozen=True)
class Stream:
    """What a stream keeps over its frames; N steps, each column [N, 1, 1, 1] in fp32.

    `noise` [N, C, h, w] is one fp32 field for each step, the same for every frame.
    """

    timesteps: torch.Tensor
    prompt_embeds: torch.Tensor
    timestep_cond: torch.Tensor | None
    noise: torch.Tensor
    signal_scale: torch.Tensor
    noise_scale: torch.Tensor
    c_skip: torch.Tensor
    c_out: torch.Tensor

    @property
    def num_steps(self) -> int:
        return len(self.timesteps)


class StreamLane:
    """One stream at a time. A single picture is a stream of one frame: N calls of N rows."""

    def __init__(self, setup: Setup, name: str, *, is_compiled: bool = False) -> None:
        self.name = name
        self.unet_calls = self.unet_rows = 0
        self._setup = setup
        self._pipeline = DiffusersLane(setup, is_compiled=is_compiled, is_tiny=True).pipeline

    def picture(self, job: Job) -> Pixels:
        stream = self.begin(job)
        picture, buffer = self.feed(stream, None, job.image)
        for _ in range(stream.num_steps - 1):
            picture, buffer = self.feed(stream, buffer, job.image)
        return picture

    def run(self, jobs: Sequence[Job]) -> list[float]:
        started, seconds = time.perf_counter(), []
        for job in jobs:
            self.picture(job)
            seconds.append(time.perf_counter() - started)
        self.unet_calls = sum(job.params.num_inference_steps for job in jobs)
        self.unet_rows = sum(job.params.num_inference_steps**2 for job in jobs)
        return seconds

    def stream(self, frames: Sequence[Job], in_flight: int) -> tuple[float, list[float]]:
        """See `StreamingLane`. Raises ValueError unless `in_flight` is the number of steps."""
        stream = self.begin(frames[0])
        if stream.num_steps != in_flight:
            raise ValueError(f"{stream.num_steps} steps hold as many frames, not {in_flight}")
        buffer, sent = None, deque[float]()
        for frame in [frames[0]] * (in_flight - 1):
            sent.append(time.perf_counter())
            _, buffer = self.feed(stream, buffer, frame.image)
        started, latencies = time.perf_counter(), []
        for frame in frames:
            sent.append(time.perf_counter())
            _, buffer = self.feed(stream, buffer, frame.image)
            latencies.append(time.perf_counter() - sent.popleft())
        return time.perf_counter() - started, latencies

    @torch.no_grad()
    def begin(self, job: Job) -> Stream:
        params, pipeline, device = job.params, self._pipeline, self._setup.device
        scheduler, config = pipeline.scheduler, pipeline.unet.config
        scheduler.set_timesteps(params.num_inference_steps, device, strength=params.strength)
        timesteps = scheduler.timesteps
        num_steps = len(timesteps)
        alphas = scheduler.alphas_cumprod[timesteps.cpu()]
        scalings = [scheduler.get_scalings_for_boundary_condition_discrete(t) for t in timesteps]
        embeds, _ = pipeline.encode_prompt(
            params.prompt, device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        guidance = None
        if config.time_cond_proj_dim is not None:
            w = torch.tensor([params.guidance_scale - 1]).repeat(num_steps)
            guidance = pipeline.get_guidance_scale_embedding(
                w, embedding_dim=config.time_cond_proj_dim
            ).to(device, self._setup.dtype)
        generator = torch.Generator("cpu").manual_seed(params.seeds[0])
        sides = [side // pipeline.vae_scale_factor for side in (params.height, params.width)]
        fields = [  # one after another, as the other lanes draw noise for their steps
            torch.randn((1, config.in_channels, *sides), generator=generator)
            for _ in range(num_steps)
        ]

        def column(values: torch.Tensor) -> torch.Tensor:
            return values.float().to(device).view(-1, 1, 1, 1)

        return Stream(
            timesteps=timesteps,
            prompt_embeds=embeds.expand(num_steps, -1, -1),
            timestep_cond=guidance,
            noise=torch.cat(fields).to(device),
            signal_scale=column(alphas.sqrt()),
            noise_scale=column((1 - alphas).sqrt()),
            c_skip=column(torch.stack([torch.as_tensor(skip) for skip, _ in scalings])),
            c_out=column(torch.stack([torch.as_tensor(out) for _, out in scalings])),
        )

    @torch.no_grad()
    def feed(
        self, stream: Stream, buffer: torch.Tensor | None, image: Pixels
    ) -> tuple[Pixels, torch.Tensor]:
        """Take a frame in; return the picture that comes out, and the next buffer.

        `buffer` [N - 1, C, h, w] holds frames at the second step and later; None is an empty one.
        """
        latents = self._encode(image)
        first = stream.signal_scale[:1] * latents + stream.noise_scale[:1] * stream.noise[:1]
        if buffer is None:
            buffer = torch.zeros_like(first).expand(stream.num_steps - 1, -1, -1, -1)
        noisy = torch.cat([first, buffer])  # [N, C, h, w]
        output = self._pipeline.unet(
            noisy.to(self._setup.dtype),
            stream.timesteps,
            stream.prompt_embeds,
            timestep_cond=stream.timestep_cond,
            return_dict=False,
        )[0].float()
        if self._pipeline.scheduler.config.prediction_type == "v_prediction":
            clean = stream.signal_scale * noisy - stream.noise_scale * output
        else:
            clean = (noisy - stream.noise_scale * output) / stream.signal_scale
        denoised = stream.c_out * clean + stream.c_skip * noisy  # fp32 between the UNet's calls
        left = stream.signal_scale[1:] * denoised[:-1] + stream.noise_scale[1:] * stream.noise[1:]
        return self._decode(denoised[-1:]), left

    def _encode(self, image: Pixels) -> torch.Tensor:
        pixels = torch.from_numpy(image).to(self._setup.device).permute(2, 0, 1)[None]
        scaled = (pixels.float() / 127.5 - 1).to(self._setup.dtype)  # [1, 3, H, W]
        vae = self._pipeline.vae
        latents: torch.Tensor = vae.encode(scaled).latents * vae.config.scaling_factor
        return latents

    def _decode(self, latents: torch.Tensor) -> Pixels:
        vae = self._pipeline.vae
        scaled = (latents / vae.config.scaling_factor).to(self._setup.dtype)
        image = vae.decode(scaled, return_dict=False)[0]
        pixels = ((image[0].float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        picture: Pixels = pixels.permute(1, 2, 0).cpu().numpy()  # [H, W, 3]
        return picture
