"""Two engines against one on this machine, and what the model of capacity says of it before.

    python -m benchmarks.service.scaling

Lanes in turn, each the whole service as `instant-refine serve` starts it, on the bundled checkpoint
at 512 x 512 with 4 steps: one engine with one thread and one client (what the model is given); with
8 clients, one engine with all threads, and two engines with a thread each; and the same on Ray, one
replica and two. Writes a row to `results/scaling.csv` and ends in a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.core.environment import conditions
from benchmarks.core.rows import append_row
from benchmarks.service.served import run_json, served

_RESULTS = Path(__file__).parents[1] / "results" / "scaling.csv"
_ON_RAY = {"REFINE_RAY": "local", "REFINE_RAY_CPUS_PER_ENGINE": "0.5", "REFINE_NUM_THREADS": "1"}


def lane(clients: int, seconds: float, **settings: str) -> dict[str, float]:
    """Return pictures a second, and core seconds a picture of the front and of the engines."""
    with served({"REFINE_DTYPE": "float32", **settings}) as service:
        url, front = service.url, service.front
        engines = front.children()  # on Ray: what of the cluster this process has started
        before = _core_s([front]), _core_s(engines)
        load = run_json(
            "benchmarks.service.load", url, "--clients", str(clients), "--seconds", str(seconds)
        )
        count = len(load["samples"])
        return {
            "pictures_per_s": count / load["seconds"],
            "front_core_s": (_core_s([front]) - before[0]) / count,
            "engine_core_s": (_core_s(engines) - before[1]) / count,
        }


def _core_s(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(used.user + used.system for used in times))


def predicted_pictures_per_s(alone: dict[str, float], engines: int, cores: int) -> float:
    """Return what the model says of `engines` with a thread each, from one engine with one client.

    Engines add up until the cores are spent; a picture costs what its engine and the front use.
    """
    by_cores = cores / (alone["front_core_s"] + alone["engine_core_s"])
    return min(engines / alone["engine_core_s"], by_cores)


def measure(rounds: int, seconds: float) -> dict[str, float]:
    lanes: dict[str, tuple[int, dict[str, str]]] = {
        "alone": (1, {"REFINE_NUM_THREADS": "1"}),
        "one": (8, {}),
        "two": (8, {"REFINE_DEVICE": "cpu,cpu", "REFINE_NUM_THREADS": "1"}),
        "ray_one": (8, {**_ON_RAY, "REFINE_RAY_MIN_ENGINES": "1"}),
        "ray_two": (8, {**_ON_RAY, "REFINE_RAY_MIN_ENGINES": "2"}),
    }
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in lanes}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("lanes", total=rounds * len(lanes))
        for _ in range(rounds):
            for name, (clients, settings) in lanes.items():
                seen[name].append(lane(clients, seconds, **settings))
                progress.advance(task)
    means = {
        name: {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
        for name, runs in seen.items()
    }
    predicted = predicted_pictures_per_s(means["alone"], 2, os.cpu_count() or 1)
    return {
        "one_engine_pictures_per_s": means["one"]["pictures_per_s"],
        "two_engines_pictures_per_s": means["two"]["pictures_per_s"],
        "two_against_one": means["two"]["pictures_per_s"] / means["one"]["pictures_per_s"],
        "ray_one_pictures_per_s": means["ray_one"]["pictures_per_s"],
        "ray_two_pictures_per_s": means["ray_two"]["pictures_per_s"],
        "ray_two_against_one": means["ray_two"]["pictures_per_s"]
        / means["ray_one"]["pictures_per_s"],
        "two_engines_predicted": predicted,
        "measured_against_predicted": means["two"]["pictures_per_s"] / predicted,
        "front_core_ms": 1000 * means["alone"]["front_core_s"],
        "engine_core_ms": 1000 * means["alone"]["engine_core_s"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    arguments = parser.parse_args()
    figures = measure(arguments.rounds, arguments.seconds)
    row: dict[str, Any] = {name: round(value, 3) for name, value in figures.items()}
    row |= {"clients": 8, "dtype": "float32", "shape": "512x512", "steps": 4, **conditions()}
    append_row(_RESULTS, row)
    table = Table("figure", "value")
    for name, value in row.items():
        table.add_row(name, str(value))
    Console().print(table)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
