"""What the front adds on a CPU, and pictures a second against diffusers, lanes in turn.

On the bundled checkpoint in fp32, at 512 x 512 with 4 steps:

- front overhead: one client, its time less what the engine accounts for, p50;
- throughput: 8 clients of ours against 8 threads at one diffusers pipeline behind a lock;
- the longest stall of the front's event loop while those 8 clients are served.

The front runs in this process, which is one of its own and has no torch in it, as when it serves.
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
from dataclasses import dataclass, field

import httpx
import psutil
from rich.console import Console
from rich.progress import Progress

from benchmarks.service.served import run_json
from models.catalog import find_checkpoint
from models.hub import local_folder
from service.bench.report import percentile
from service.client import LocalEngineClient
from service.front.app import create_app
from service.front.server import create_server
from service.settings import Settings

COLUMNS = (
    "front_overhead_p50_ms", "ours_pictures_per_s", "diffusers_pictures_per_s", "ratio",
    "worst_loop_stall_ms", "ours_p50_ms", "ours_p99_ms", "diffusers_p50_ms", "diffusers_p99_ms",
    "engine_memory_mib",
)  # fmt: skip
_PORT = 8099
_LAG_PERIOD_S = 0.005


class LagMonitor:
    """The longest time for which an event loop did not come back to a timer, in milliseconds."""

    def __init__(self) -> None:
        self.worst_ms = 0.0

    async def run(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_LAG_PERIOD_S)
            lag_ms = 1000 * (time.perf_counter() - before - _LAG_PERIOD_S)
            self.worst_ms = max(self.worst_ms, lag_ms)


@contextmanager
def our_server(monitor: LagMonitor) -> Iterator[str]:
    """Serve the bundled checkpoint from this process, its loop watched; yield the address."""
    settings = Settings(port=_PORT, dtype="float32", deadline_s=120)
    app = create_app(settings, LocalEngineClient(settings.engines()[0]))
    server = create_server(app, settings)

    async def serve() -> None:
        watcher = asyncio.create_task(monitor.run())
        await server.serve()
        watcher.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{_PORT}"
    try:
        _wait_until_ready(url)
        yield url
    finally:
        server.should_exit = True
        thread.join()


def _wait_until_ready(url: str) -> None:
    while True:
        time.sleep(0.2)
        try:
            if httpx.get(url + "/health/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            continue


@dataclass
class Seen:
    """What the rounds saw: pictures a second of each lane, and times in milliseconds."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    overheads_ms: list[float] = field(default_factory=list)
    stalls_ms: list[float] = field(default_factory=list)
    our_latencies_ms: list[float] = field(default_factory=list)
    their_latencies_ms: list[float] = field(default_factory=list)
    engine_mib: float = 0.0

    def figures(self) -> dict[str, float]:
        values = {
            "front_overhead_p50_ms": statistics.median(self.overheads_ms),
            "ours_pictures_per_s": statistics.mean(self.ours),
            "diffusers_pictures_per_s": statistics.mean(self.theirs),
            "ratio": statistics.mean(self.ours) / statistics.mean(self.theirs),
            "worst_loop_stall_ms": max(self.stalls_ms),
            "ours_p50_ms": statistics.median(self.our_latencies_ms),
            "ours_p99_ms": percentile(self.our_latencies_ms, 0.99),
            "diffusers_p50_ms": statistics.median(self.their_latencies_ms),
            "diffusers_p99_ms": percentile(self.their_latencies_ms, 0.99),
            "engine_memory_mib": self.engine_mib,
        }
        return {name: round(value, 2) for name, value in values.items()}


def measure(rounds: int, seconds: float, clients: int) -> dict[str, float]:
    """Run all lanes in turn; return the figures."""
    folder = str(local_folder(find_checkpoint("pocket")))
    load = ["--clients", str(clients), "--seconds", str(seconds)]
    seen = Seen()
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("lanes of the front", total=2 * rounds)
        for _ in range(rounds):
            peer = run_json("benchmarks.service.diffusers_clients", folder, *load)
            seen.theirs.append(len(peer["latencies_ms"]) / peer["seconds"])
            seen.their_latencies_ms += peer["latencies_ms"]
            progress.advance(task)
            _measure_ours(seen, load, seconds)
            progress.advance(task)
    return seen.figures()


def _measure_ours(seen: Seen, load: list[str], seconds: float) -> None:
    monitor = LagMonitor()
    with our_server(monitor) as url:
        alone = run_json(
            "benchmarks.service.load", url, "--clients", "1", "--seconds", str(seconds)
        )
        seen.overheads_ms += [whole - engine for whole, engine in alone["samples"]]
        monitor.worst_ms = 0.0
        crowd = run_json("benchmarks.service.load", url, *load)
        seen.stalls_ms.append(monitor.worst_ms)
        seen.engine_mib = max(seen.engine_mib, _children_mib())
    seen.our_latencies_ms += [whole for whole, _ in crowd["samples"]]
    seen.ours.append(len(crowd["samples"]) / crowd["seconds"])


def _children_mib() -> float:
    """Return the memory of our engine's process, the only child while lanes do not run."""
    children = psutil.Process().children()
    return max((child.memory_info().rss for child in children), default=0) / (1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.rounds, arguments.seconds, arguments.clients)))


if __name__ == "__main__":
    main()
