"""Our engine against diffusers, side by side: lanes A, B, D and E of the protocol.

    python -m benchmarks.bench_peers                                    pocket on this machine's CPU
    python -m benchmarks.bench_peers --device cuda --checkpoint FOLDER  see random_checkpoint.py

First each lane makes the same picture, and they are held against one another; then they are timed
in turn, A-B-D-A-B-D, on one request at a time, and on `--users` requests at once that are mixed in
steps, strength, guidance and prompt. Appends rows to `results/peers.csv`; ends in a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.conditions import conditions
from benchmarks.lanes import DiffusersLane, EngineLane, Lane
from benchmarks.place import Place
from benchmarks.requests import make_job, mixed_jobs
from benchmarks.rows import append_row
from models.catalog import find_checkpoint
from models.hub import local_folder
from service.bench.report import percentile

_RESULTS = Path(__file__).parent / "results" / "peers.csv"
_MOST_LEVELS_APART = {"float32": 1, "float16": 12, "bfloat16": 24}
_WARM_UPS = 2


def check_equal(lanes: list[Lane], dtype: str) -> None:
    """Hold the lanes' pictures of one job against the first one's; raise where one is another."""
    job = make_job(7)
    reference = lanes[0].picture(job).astype(int)
    for lane in lanes[1:]:
        apart = int(np.abs(lane.picture(job).astype(int) - reference).max())
        if apart > _MOST_LEVELS_APART[dtype]:
            raise SystemExit(f"{lane.name} is {apart} levels from {lanes[0].name}: nothing to time")


def measure(
    lanes: list[Lane], *, rounds: int, users: int, until: float
) -> dict[str, dict[str, list[float]]]:
    """Time all lanes in turn, lone and crowded, until the rounds or the time are over."""
    lone, crowd = [make_job(3)], mixed_jobs(users)
    seen: dict[str, dict[str, list[float]]] = {
        lane.name: {"lone_s": [], "crowd_s": [], "last_s": []} for lane in lanes
    }
    for lane in lanes:
        for _ in range(_WARM_UPS):
            lane.run(lone)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("rounds", total=rounds)
        for _ in range(rounds):
            if time.monotonic() > until:
                break
            for lane in lanes:
                seen[lane.name]["lone_s"] += lane.run(lone)
            for lane in lanes:
                seconds = lane.run(crowd)
                seen[lane.name]["crowd_s"] += seconds
                seen[lane.name]["last_s"].append(max(seconds))
            progress.advance(task)
    return seen


def to_rows(
    lanes: list[Lane], seen: dict[str, dict[str, list[float]]], users: int, place: Place
) -> list[dict[str, Any]]:
    first = seen[lanes[0].name]
    rows = []
    for lane in lanes:
        times = seen[lane.name]
        pictures_per_s = users / statistics.median(times["last_s"])
        rows.append(
            {
                "lane": lane.name,
                "lone_p50_ms": round(1000 * statistics.median(times["lone_s"]), 1),
                "lone_p95_ms": round(1000 * percentile(times["lone_s"], 0.95), 1),
                "time_against_first": round(
                    statistics.median(times["lone_s"]) / statistics.median(first["lone_s"]), 3
                ),
                "users": users,
                "crowd_p50_ms": round(1000 * statistics.median(times["crowd_s"]), 1),
                "crowd_p99_ms": round(1000 * percentile(times["crowd_s"], 0.99), 1),
                "pictures_per_s": round(pictures_per_s, 3),
                "rate_against_first": round(
                    statistics.median(first["last_s"]) / statistics.median(times["last_s"]), 3
                ),
                "unet_calls": getattr(lane, "num_unet_calls", ""),
                "rounds": len(times["last_s"]),
                "shape": "512x512",
                "steps": "4, and 4 to 16 in the crowd",
                "checkpoint": place.checkpoint.name,
                "device": place.device
                if place.device == "cpu"
                else torch.cuda.get_device_name(place.device),
                "dtype": place.dtype_name,
                "threads": torch.get_num_threads(),
                **conditions(),
            }
        )
    return rows


def make_lanes(place: Place, max_batch: int, *, with_compiled: bool) -> list[Lane]:
    lanes: list[Lane] = [DiffusersLane(place)]
    if with_compiled:
        lanes.append(DiffusersLane(place, "diffusers, compiled", is_tuned=True))
    for rows in dict.fromkeys((1, max_batch)):
        name = f"ours, up to {rows} rows"
        lanes.append(EngineLane(place, name, max_batch=rows, is_compiled=with_compiled))
    return lanes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=local_folder(find_checkpoint("pocket")))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--max-batch", type=int, default=0, help="0: 1 on a CPU, 8 on CUDA")
    parser.add_argument("--compiled", action="store_true", help="compiled lanes of both too")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds, after the warm-up")
    arguments = parser.parse_args()
    place = Place(arguments.checkpoint, arguments.device, arguments.dtype)
    max_batch = arguments.max_batch or (1 if arguments.device == "cpu" else 8)
    lanes = make_lanes(place, max_batch, with_compiled=arguments.compiled)
    check_equal(lanes, arguments.dtype)
    seen = measure(
        lanes,
        rounds=arguments.rounds,
        users=arguments.users,
        until=time.monotonic() + arguments.budget,
    )
    rows = to_rows(lanes, seen, arguments.users, place)
    names = ["lane", "lone_p50_ms", "time_against_first", "pictures_per_s", "rate_against_first"]
    table = Table(*names)
    for row in rows:
        append_row(_RESULTS, row)
        table.add_row(*(str(row[name]) for name in names))
    Console().print(table)
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
