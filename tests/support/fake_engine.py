"""A real engine process around a model that sleeps: queue, slots, steps and pipe are the real ones.

    python -m tests.support.fake_engine --socket-fd N --settings JSON

Load and faults can so be shown on two cores. A UNet call takes FAKE_STEP_S seconds, however many
rows share it. What a prompt says happens at the first step of its row:

    fail, nan, oom      the row cannot be denoised, its numbers are spoiled, memory is short
    sick, hang, stop    the device is sick, the call never returns, the whole process stands still
    exit N, segfault    the process ends; `garbage` writes junk into the pipe
    later X             is X, but only in an engine that has made a picture already
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from types import SimpleNamespace
from typing import Any

import torch

from models.lcm import LCMSchedule
from models.pipeline import Conditioning, Pipeline
from models.text_encoder import PromptEmbeds
from service.engine import worker
from service.engine.engine import Engine
from service.engine.scheduler import Scheduler
from service.protocol.messages import Ready
from service.settings import EngineSettings
from tests.support.leak import leak

FAULTS = ("", "fail", "nan", "oom", "sick", "hang", "stop", "exit", "segfault", "garbage")
_SCALE = 8
_SCHEDULE = LCMSchedule(1000, 50, 0.00085, 0.012, "scaled_linear", "epsilon", 10.0, None)


class SleepingPipeline(Pipeline):
    """Pictures in and out by scaling alone; a prompt's fault travels in its embedding."""

    def __init__(self, step_s: float) -> None:
        config = SimpleNamespace(time_cond_proj_dim=2, in_channels=4, addition_embed_type=None)
        unet = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, config=config)
        autoencoder: Any = SimpleNamespace(scale_factor=_SCALE, has_posterior=False)
        nothing: Any = None
        super().__init__(
            unet=unet,
            autoencoders={"full": autoencoder},
            prompts=nothing,
            schedule=_SCHEDULE,
            adapters=nothing,
        )
        self._step_s = step_s
        self._num_pictures = 0

    def encode_prompt(self, prompt: str, *_: Any, **__: Any) -> PromptEmbeds:
        return PromptEmbeds(torch.tensor([[self._fault_of(prompt)]]), None, 0)

    def _fault_of(self, prompt: str) -> tuple[float, float]:
        words = prompt.split()
        if words[:1] == ["later"]:
            words = words[1:] if self._num_pictures > 1 else []
        kind = FAULTS.index(words[0]) if words and words[0] in FAULTS else 0
        return float(kind), float(words[1]) if kind and len(words) > 1 else 0.0

    def encode_image(self, pixels: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        small = pixels[:, ::_SCALE, ::_SCALE, :1].permute(0, 3, 1, 2).float() / 127.5 - 1
        return small.repeat(1, 4, 1, 1) + torch.linspace(0, 0.1, 4)[:, None, None]

    def predict_noise(self, latents: torch.Tensor, *others: Any, **_: Any) -> torch.Tensor:
        conditioning: Conditioning = others[1]
        time.sleep(self._step_s)
        for row, (kind, argument) in enumerate(conditioning.prompt_embeds[:, 0, 0].tolist()):
            if FAULTS[int(kind)] == "nan":
                latents[row] = float("nan")
            elif kind:
                _strike(FAULTS[int(kind)], int(argument))
        return latents * 0.1

    def decode_latents(self, latents: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self._num_pictures += len(latents)
        small = (latents[:, :3].permute(0, 2, 3, 1) + 1) * 127.5
        return small.repeat_interleave(_SCALE, 1).repeat_interleave(_SCALE, 2)


def _strike(fault: str, argument: int) -> None:
    if fault == "fail":
        raise ValueError("a row that cannot be denoised")
    if fault == "oom":
        raise torch.OutOfMemoryError("CUDA out of memory")
    if fault == "sick":
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    if fault == "hang":
        time.sleep(1e6)
    if fault == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fault == "exit":
        os._exit(argument)
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "garbage":
        socket_fd = int(next(word for word in sys.argv if "--socket-fd" in word).split("=")[1])
        os.write(socket_fd, b"HTTP/1.1 200 OK\r\n\r\n" * 4)
        time.sleep(1e6)


def load_engine(settings: EngineSettings) -> tuple[Engine, Ready]:
    """Make an engine that sleeps; FAKE_LOAD_S is how long it takes to load."""
    time.sleep(float(os.environ.get("FAKE_LOAD_S", "0")))
    max_batch = settings.max_batch or 1
    scheduler = Scheduler(max_batch=max_batch, max_waiting=settings.max_waiting + max_batch)
    pipeline = SleepingPipeline(float(os.environ.get("FAKE_STEP_S", "0.01")))
    ready = Ready("cpu", "float32", settings.model, max_batch)
    engine = Engine({settings.model: pipeline}, scheduler)
    states: Any = engine._states._states
    leak("engine", tasks=lambda: states.setdefault(object()))
    return engine, ready


if __name__ == "__main__":
    sys.exit(worker.main(load_engine))
