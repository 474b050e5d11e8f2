"""StreamDiffusion's recipe for one user's stream of frames, written from arXiv 2312.12491.

Its stream batch keeps a frame at each of the N steps: a UNet call takes a new frame in at the
first, moves every other one a step further, and lets the one at the last out. Decoded by TAESD,
prompt embeddings and noise made once for the stream. Of its other parts, guidance by residuals is
not needed by a UNet that embeds its guidance, and what skips frames that look alike makes none
faster. In the place of its TensorRT engines stands torch.compile, as in lane B.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.core.setup import Place
from benchmarks.lanes.base import DiffusersLane
from service.jobs import Job, Pixels


@dataclass(frozen=True)
class Stream:
    """What a stream keeps over its frames; N steps, each column [N, 1, 1, 1] in fp32.

    `noise` [N, C, h, w] is one field for each step, the same for every frame, in fp32, too.
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
    """A stream at a time; a lone picture is a stream of one frame, and takes N calls of N rows."""

    def __init__(self, place: Place, name: str, *, is_tuned: bool = False) -> None:
        self.name = name
        self.unet_calls = self.unet_rows = 0
        self._place = place
        self._pipeline = DiffusersLane(place, is_tuned=is_tuned, is_tiny=True).pipeline

    def picture(self, job: Job) -> Pixels:
        *_, last = self._feed_often(job)
        return last

    def run(self, jobs: Sequence[Job]) -> list[float]:
        """Make each picture by a stream of its own, one after another."""
        started, seconds = time.perf_counter(), []
        for job in jobs:
            self.picture(job)
            seconds.append(time.perf_counter() - started)
        self.unet_calls = sum(job.params.num_inference_steps for job in jobs)
        self.unet_rows = sum(job.params.num_inference_steps**2 for job in jobs)
        return seconds

    def stream(self, frames: Sequence[Job], in_flight: int) -> tuple[float, list[float]]:
        """Take frames of one user in turn, `in_flight` of them on their way, as many as steps.

        Returns the seconds from when the stream was full until as many pictures had come as there
        are frames, and how long each was on its way.
        """
        stream = self._begin(frames[0])
        if stream.num_steps != in_flight:
            raise ValueError(f"{stream.num_steps} steps hold as many frames, not {in_flight}")
        buffer, sent = None, deque[float]()
        for frame in [frames[0]] * (in_flight - 1):
            sent.append(time.perf_counter())
            _, buffer = self._feed(stream, buffer, frame.image)
        started, latencies = time.perf_counter(), []
        for frame in frames:
            sent.append(time.perf_counter())
            _, buffer = self._feed(stream, buffer, frame.image)
            latencies.append(time.perf_counter() - sent.popleft())
        return time.perf_counter() - started, latencies

    def _feed_often(self, job: Job) -> list[Pixels]:
        stream, buffer, pictures = self._begin(job), None, []
        for _ in range(stream.num_steps):
            picture, buffer = self._feed(stream, buffer, job.image)
            pictures.append(picture)
        return pictures

    @torch.no_grad()
    def _begin(self, job: Job) -> Stream:
        params, pipeline, place = job.params, self._pipeline, self._place
        scheduler = pipeline.scheduler
        scheduler.set_timesteps(params.num_inference_steps, place.device, strength=params.strength)
        timesteps = scheduler.timesteps
        alphas = scheduler.alphas_cumprod[timesteps.cpu()]
        scalings = [scheduler.get_scalings_for_boundary_condition_discrete(t) for t in timesteps]
        embeds, _ = pipeline.encode_prompt(
            params.prompt, place.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Stream(
            timesteps=timesteps,
            prompt_embeds=embeds.expand(len(timesteps), -1, -1),
            timestep_cond=self._guidance(params.guidance_scale, len(timesteps)),
            noise=self._noise(job, len(timesteps)),
            signal_scale=self._column(alphas.sqrt()),
            noise_scale=self._column((1 - alphas).sqrt()),
            c_skip=self._column(torch.stack([torch.as_tensor(skip) for skip, _ in scalings])),
            c_out=self._column(torch.stack([torch.as_tensor(out) for _, out in scalings])),
        )

    @torch.no_grad()
    def _feed(
        self, stream: Stream, buffer: torch.Tensor | None, image: Pixels
    ) -> tuple[Pixels, torch.Tensor]:
        """Take a frame in; return the picture that comes out, and what is left on its way.

        `buffer` [N - 1, C, h, w] holds frames at the second step and beyond; None is an empty one.
        """
        latents = self._encode(image)
        first = stream.signal_scale[:1] * latents + stream.noise_scale[:1] * stream.noise[:1]
        if buffer is None:
            buffer = torch.zeros_like(first).expand(stream.num_steps - 1, -1, -1, -1)
        noisy = torch.cat([first, buffer])  # [N, C, h, w]
        output = self._pipeline.unet(
            noisy.to(self._place.dtype),
            stream.timesteps,
            stream.prompt_embeds,
            timestep_cond=stream.timestep_cond,
            return_dict=False,
        )[0]
        clean = self._clean(stream, noisy, output.float())
        denoised = stream.c_out * clean + stream.c_skip * noisy  # fp32 between the UNet's calls
        left = stream.signal_scale[1:] * denoised[:-1] + stream.noise_scale[1:] * stream.noise[1:]
        return self._decode(denoised[-1:]), left

    def _clean(self, stream: Stream, noisy: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        if self._pipeline.scheduler.config.prediction_type == "v_prediction":
            return stream.signal_scale * noisy - stream.noise_scale * output
        return (noisy - stream.noise_scale * output) / stream.signal_scale

    def _encode(self, image: Pixels) -> torch.Tensor:
        pixels = torch.from_numpy(image).to(self._place.device).permute(2, 0, 1)[None]
        scaled = (pixels.float() / 127.5 - 1).to(self._place.dtype)  # [1, 3, H, W]
        vae = self._pipeline.vae
        latents: torch.Tensor = vae.encode(scaled).latents * vae.config.scaling_factor
        return latents

    def _decode(self, latents: torch.Tensor) -> Pixels:
        vae = self._pipeline.vae
        scaled = (latents / vae.config.scaling_factor).to(self._place.dtype)
        image = vae.decode(scaled, return_dict=False)[0]
        pixels = ((image[0].float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        picture: Pixels = pixels.permute(1, 2, 0).cpu().numpy()  # [H, W, 3]
        return picture

    def _guidance(self, scale: float, num_steps: int) -> torch.Tensor | None:
        pipeline: Any = self._pipeline
        dim = pipeline.unet.config.time_cond_proj_dim
        if dim is None:
            return None
        w = torch.tensor([scale - 1]).repeat(num_steps)
        embedded: torch.Tensor = pipeline.get_guidance_scale_embedding(w, embedding_dim=dim)
        return embedded.to(self._place.device, self._place.dtype)

    def _noise(self, job: Job, num_steps: int) -> torch.Tensor:
        """Draw a field for each step, one after another, as the other lanes do for their steps."""
        generator = torch.Generator("cpu").manual_seed(job.params.seeds[0])
        scale = self._pipeline.vae_scale_factor
        sides = job.params.height // scale, job.params.width // scale
        shape = (1, self._pipeline.unet.config.in_channels, *sides)
        fields = [torch.randn(shape, generator=generator) for _ in range(num_steps)]
        return torch.cat(fields).to(self._place.device)

    def _column(self, values: torch.Tensor) -> torch.Tensor:
        return values.float().to(self._place.device).view(-1, 1, 1, 1)
