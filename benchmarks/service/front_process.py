"""What the front adds on a CPU, and pictures a second against diffusers, lanes in turn.

On the bundled checkpoint in fp32, 512 x 512 pixels, 4 steps:

- front overhead: one client, its latency less what the engine accounts for, p50;
- throughput: our clients against as many threads at one diffusers pipeline behind a lock;
- the longest stall of the front's event loop while our clients are served.

The front runs in the process of this module, which imports no torch, as when it serves. Prints one
line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil

from benchmarks.service.served import run_json
from models.checkpoints.catalog import find_checkpoint
from models.checkpoints.hub import local_folder
from service.engine_client.local import LocalEngineClient
from service.front.app import create_app
from service.front.server import create_server
from service.loadgen.report import percentile
from service.settings import Settings

_PORT = 8099
_LAG_PERIOD_S = 0.005


class LagMonitor:
    """The longest time for which an event loop did not return to a timer."""

    def __init__(self) -> None:
        self.worst_ms = 0.0

    async def run(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_LAG_PERIOD_S)
            lag_ms = 1000 * (time.perf_counter() - before - _LAG_PERIOD_S)
            self.worst_ms = max(self.worst_ms, lag_ms)


@contextmanager
def serving(monitor: LagMonitor) -> Iterator[str]:
    """Serve the bundled checkpoint from this process with a watched loop; yield the address."""
    settings = Settings(port=_PORT, dtype="float32", deadline_s=120)
    app = create_app(settings, LocalEngineClient(settings.engines()[0]))
    server = create_server(app, settings)

    async def serve() -> None:
        watcher = asyncio.create_task(monitor.run())
        await server.serve()
        watcher.cancel()

    def is_ready() -> bool:
        try:
            return httpx.get(url + "/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{_PORT}"
    try:
        while not is_ready():
            time.sleep(0.2)
        yield url
    finally:
        server.should_exit = True
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    folder = str(local_folder(find_checkpoint("pocket")))
    seconds = ["--seconds", str(arguments.seconds)]
    load = ["--clients", str(arguments.clients), *seconds]
    ours, theirs = list[float](), list[float]()  # pictures a second
    ours_ms, theirs_ms = list[float](), list[float]()  # latencies
    overheads_ms, stalls_ms, engine_mib = list[float](), list[float](), 0.0
    for _ in range(arguments.rounds):
        peer = run_json("benchmarks.service.diffusers_clients", folder, *load)
        theirs.append(len(peer["latencies_ms"]) / peer["seconds"])
        theirs_ms += peer["latencies_ms"]
        monitor = LagMonitor()
        with serving(monitor) as url:
            alone = run_json("benchmarks.service.load", url, "--clients", "1", *seconds)
            overheads_ms += [whole_ms - engine_ms for whole_ms, engine_ms in alone["samples"]]
            monitor.worst_ms = 0.0
            many = run_json("benchmarks.service.load", url, *load)
            stalls_ms.append(monitor.worst_ms)
            children = psutil.Process().children()  # the engine's process is the only one now
            engine_mib = max(engine_mib, *(one.memory_info().rss / (1 << 20) for one in children))
        ours_ms += [whole_ms for whole_ms, _ in many["samples"]]
        ours.append(len(many["samples"]) / many["seconds"])
    figures = {
        "front_overhead_p50_ms": statistics.median(overheads_ms),
        "ours_pictures_per_s": statistics.mean(ours),
        "diffusers_pictures_per_s": statistics.mean(theirs),
        "ratio": statistics.mean(ours) / statistics.mean(theirs),
        "worst_loop_stall_ms": max(stalls_ms),
        "ours_p50_ms": statistics.median(ours_ms),
        "ours_p99_ms": percentile(ours_ms, 0.99),
        "diffusers_p50_ms": statistics.median(theirs_ms),
        "diffusers_p99_ms": percentile(theirs_ms, 0.99),
        "engine_memory_mib": engine_mib,
    }
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
