"""Seconds of a request in bare diffusers and through the service, and bfloat16's accuracy."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.backends.cpu import get_cpu_capability

from models.runtime.device import has_bf16_products, pick_dtype
from models.training.evaluation.inputs import GUIDANCE, Evaluation, held_out_scenes, prompt_for
from models.training.evaluation.report import Row
from models.training.evaluation.sampling import load_pipeline, refine
from models.training.scenes.renderers import DOODLE, render
from models.training.stages.autoencoder import psnr


def speed_and_precision(evaluation: Evaluation) -> list[Row]:
    """Time 512 x 512 in four steps in the service's dtype; compare bfloat16 with float32."""
    auto = pick_dtype("auto", "cpu")
    images, seconds = _refine_singly(evaluation, auto)
    accuracy = "not measured: this processor has no units for it"
    if has_bf16_products():
        full, half = (
            images if dtype == auto else _refine_singly(evaluation, dtype)[0]
            for dtype in (torch.float32, torch.bfloat16)
        )
        accuracy = f"{psnr(full, half, span=1):.1f} dB"
    return [
        Row(_speed_metric("bare diffusers"), f"{seconds:.2f} s", "1.0 s", "-"),
        Row("bf16 against float32", accuracy, "35 dB", "same"),
    ]


def service_latency(evaluation: Evaluation) -> list[Row]:
    """Time 512 x 512 in four steps through a service that runs at `evaluation.url`."""
    if not evaluation.url:
        print("the service is not measured: give --url of a service on this folder and the CPU")
        return []
    value = f"{median_latency(evaluation.url, 30.0):.2f} s"
    return [Row(_speed_metric("through the service"), value, "1.0 s", "same")]


def median_latency(url: str, seconds: float) -> float:
    """Return the p50 in seconds of one user, by `instant-refine bench`.

    Raises CalledProcessError if the service returns no image, and ValueError if any answer is not
    an image.
    """
    command = Path(sys.executable).with_name("instant-refine")
    ended = subprocess.run(
        [command, "bench", url, "--users", "1", "--seconds", str(seconds)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    figures = json.loads(ended.stdout)
    if figures["answers"] != f"{figures['requests']} x 200":
        raise ValueError(f"the service answered {figures['answers']}")
    return float(figures["p50_ms"]) / 1000


def _speed_metric(path: str) -> str:
    dtype = str(pick_dtype("auto", "cpu")).removeprefix("torch.")
    return f"512 x 512, 4 steps, {dtype}, {get_cpu_capability()}, {path}, p50"


def _refine_singly(evaluation: Evaluation, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Return images [B, 3, H, W] refined one at a time, and the median seconds of a request."""
    scenes = held_out_scenes(9, 8000)
    doodles = render(scenes, DOODLE, (512, 512))
    pipeline = load_pipeline(evaluation.folder, torch.device("cpu"), dtype)
    images, seconds = [], []
    for scene, doodle in zip(scenes, doodles, strict=True):
        start = time.monotonic()
        images.append(
            refine(pipeline, [prompt_for(scene)], doodle[None], strength=0.6, guidance=GUIDANCE)
        )
        seconds.append(time.monotonic() - start)
    return torch.cat(images), median(seconds[1:])  # the first request warms up
