"""A closed loop of clients against a server, in a process of its own: no lock is shared with it.

    python -m benchmarks.load URL --clients 8 --seconds 20

Prints one line of JSON: how many pictures, the seconds they took, and for each its latency and
the part of it that the engine accounts for, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time

import httpx

from benchmarks.pictures import photograph_jpeg
from service.front.dataurl import to_data_url

_ROUTE = "/lcm-instant-refine"
_ENGINE_STAGES = {"queue", "text", "encode", "denoise", "vae"}


async def run_clients(url: str, clients: int, seconds: float) -> dict[str, object]:
    """Let each client ask again as soon as it is answered, until the time is up."""
    picture = to_data_url(photograph_jpeg(512, 512), "jpeg")
    samples: list[tuple[float, float]] = []
    started = time.perf_counter()

    async def one_client(number: int) -> None:
        fields = {"imageDataUrl": picture, "prompt": "a red house in a meadow", "steps": 4}
        async with httpx.AsyncClient(timeout=120) as http:
            while time.perf_counter() - started < seconds:
                before = time.perf_counter()
                answer = await http.post(url + _ROUTE, json={**fields, "seed": number})
                answer.raise_for_status()
                elapsed_ms = 1000 * (time.perf_counter() - before)
                samples.append((elapsed_ms, _engine_ms(answer.headers["server-timing"])))

    await asyncio.gather(*(one_client(number) for number in range(clients)))
    return {"seconds": time.perf_counter() - started, "samples": samples}


def _engine_ms(server_timing: str) -> float:
    stages = re.findall(r"(\w+);dur=([\d.]+)", server_timing)
    return sum(float(elapsed) for name, elapsed in stages if name in _ENGINE_STAGES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    result = asyncio.run(run_clients(arguments.url, arguments.clients, arguments.seconds))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
