"""The service on this machine: what the front adds, and pictures a second against diffusers.

    python -m benchmarks.bench_service            (make bench)

Three measurements in one run, lanes interleaved A-B-A-B, on the bundled checkpoint in fp32:

- front overhead: one client at 512, its time less what the engine accounts for, p50;
- throughput: 8 clients of ours against 8 threads at one diffusers pipeline behind a lock;
- the longest stall of the front's event loop while those 8 clients are served.

Prints a table, appends rows to `benchmarks/results/service.csv`, and ends in a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.conditions import conditions
from benchmarks.rows import append_row
from models.catalog import find_checkpoint
from models.hub import local_folder
from service.client import LocalEngineClient
from service.front.app import create_app
from service.front.server import create_server
from service.settings import Settings

_RESULTS = Path(__file__).parent / "results" / "service.csv"
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


def run_json(*arguments: str) -> dict[str, Any]:
    """Run a module of ours in a process of its own and read the JSON that it ends in."""
    ended = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def measure(rounds: int, seconds: float, clients: int) -> dict[str, float]:
    """Run all lanes in turn; return the figures."""
    folder = str(local_folder(find_checkpoint("pocket")))
    load = ["--clients", str(clients), "--seconds", str(seconds)]
    ours: list[float] = []
    theirs: list[float] = []
    overheads_ms: list[float] = []
    stalls_ms: list[float] = []
    our_latencies_ms: list[float] = []
    their_latencies_ms: list[float] = []
    engine_mib = 0.0
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("lanes", total=3 * rounds)
        for _ in range(rounds):
            peer = run_json("benchmarks.diffusers_lane", folder, *load)
            theirs.append(len(peer["latencies_ms"]) / peer["seconds"])
            their_latencies_ms += peer["latencies_ms"]
            progress.advance(task)
            monitor = LagMonitor()
            with our_server(monitor) as url:
                alone = run_json(
                    "benchmarks.load", url, "--clients", "1", "--seconds", str(seconds)
                )
                overheads_ms += [whole - engine for whole, engine in alone["samples"]]
                progress.advance(task)
                monitor.worst_ms = 0.0
                crowd = run_json("benchmarks.load", url, *load)
                stalls_ms.append(monitor.worst_ms)
                our_latencies_ms += [whole for whole, _ in crowd["samples"]]
                engine_mib = max(engine_mib, _children_mib())
            ours.append(len(crowd["samples"]) / crowd["seconds"])
            progress.advance(task)
    return {
        "front_overhead_p50_ms": statistics.median(overheads_ms),
        "ours_pictures_per_s": statistics.mean(ours),
        "diffusers_pictures_per_s": statistics.mean(theirs),
        "ratio": statistics.mean(ours) / statistics.mean(theirs),
        "worst_loop_stall_ms": max(stalls_ms),
        "ours_p50_ms": statistics.median(our_latencies_ms),
        "ours_p99_ms": _p99(our_latencies_ms),
        "diffusers_p50_ms": statistics.median(their_latencies_ms),
        "diffusers_p99_ms": _p99(their_latencies_ms),
        "engine_memory_mib": engine_mib,
    }


def _p99(samples: list[float]) -> float:
    return sorted(samples)[min(len(samples) - 1, int(0.99 * len(samples)))]


def _children_mib() -> float:
    """Return the memory of our engine's process, the only child while lanes do not run."""
    children = psutil.Process().children()
    return max((child.memory_info().rss for child in children), default=0) / (1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    figures = measure(arguments.rounds, arguments.seconds, arguments.clients)
    row = {
        **{name: round(value, 2) for name, value in figures.items()},
        "clients": arguments.clients,
        "dtype": "float32",
        "shape": "512x512",
        "steps": 4,
        **conditions(),
    }
    append_row(_RESULTS, row)
    table = Table("figure", "value")
    for name, value in row.items():
        table.add_row(name, str(value))
    Console().print(table)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
