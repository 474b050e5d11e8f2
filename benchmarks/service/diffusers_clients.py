"""The peer on the same checkpoint: diffusers' own pipeline behind a lock, as people serve it.

    python -m benchmarks.service.diffusers_clients FOLDER --clients 8 --seconds 20

No HTTP at all, which is in its favour; JPEG in and out like ours. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import threading
import time
from typing import Any

import torch
from diffusers import LatentConsistencyModelImg2ImgPipeline
from PIL import Image

from service.bench.pictures import photograph_jpeg


def run_clients(pipeline: Any, clients: int, seconds: float) -> dict[str, object]:
    """Let threads take turns at the pipeline until the time is up."""
    lock = threading.Lock()
    latencies_ms: list[float] = []
    source = photograph_jpeg(512, 512)
    started = time.perf_counter()

    def one_client(seed: int) -> None:
        while time.perf_counter() - started < seconds:
            before = time.perf_counter()
            with Image.open(io.BytesIO(source)) as image:
                picture = image.convert("RGB")
            with lock:
                output = _refine(pipeline, picture, seed)
            output.save(io.BytesIO(), "JPEG", quality=90)
            latencies_ms.append(1000 * (time.perf_counter() - before))

    threads = [threading.Thread(target=one_client, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": time.perf_counter() - started, "latencies_ms": latencies_ms}


def _refine(pipeline: Any, image: Image.Image, seed: int) -> Image.Image:
    output: Image.Image = pipeline(
        "a red house in a meadow",
        image=image,
        num_inference_steps=4,
        strength=0.6,
        guidance_scale=6.0,
        generator=torch.Generator("cpu").manual_seed(seed),
    ).images[0]
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    pipeline = LatentConsistencyModelImg2ImgPipeline.from_pretrained(
        arguments.folder, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    _refine(pipeline, Image.new("RGB", (512, 512)), 0)
    json.dump(run_clients(pipeline, arguments.clients, arguments.seconds), sys.stdout)


if __name__ == "__main__":
    main()
