"""Diffusers' own pipeline behind a lock, with JPEG in and out: the peer of the whole service.

    python -m benchmarks.service.diffusers_clients FOLDER --clients 8 --seconds 20

It has no HTTP, which favours it. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import threading
import time

import torch
from diffusers import LatentConsistencyModelImg2ImgPipeline
from PIL import Image

from service.loadgen.images import photograph_jpeg


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    pipeline = LatentConsistencyModelImg2ImgPipeline.from_pretrained(
        arguments.folder, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    lock, source = threading.Lock(), photograph_jpeg(512, 512)

    def picture(seed: int) -> float:
        """Refine the JPEG once; return the milliseconds that it took."""
        before = time.perf_counter()
        with Image.open(io.BytesIO(source)) as file:
            image = file.convert("RGB")
        with lock:
            output = pipeline(
                "a red house in a meadow",
                image=image,
                num_inference_steps=4,
                strength=0.6,
                guidance_scale=6.0,
                generator=torch.Generator("cpu").manual_seed(seed),
            ).images[0]
        output.save(io.BytesIO(), "JPEG", quality=90)
        return 1000 * (time.perf_counter() - before)

    latencies_ms: list[float] = []

    def client(seed: int) -> None:
        while time.perf_counter() - started < arguments.seconds:
            latencies_ms.append(picture(seed))

    picture(0)
    started = time.perf_counter()
    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(arguments.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"seconds": time.perf_counter() - started, "latencies_ms": latencies_ms}))


if __name__ == "__main__":
    main()
