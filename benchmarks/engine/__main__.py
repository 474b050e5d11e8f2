"""The engine, technique by technique and batch by batch, against what the machine gives at most.

    python -m benchmarks.engine  pocket on this machine's CPU
    python -m benchmarks.engine --device cuda --checkpoint FOLDER

In one run: the ceiling (a large matrix product and a large copy); for each size the ladder from
diffusers eager to the final engine, rungs in turn; and each part over the rows that share a call.
Rows go to `results/engine.csv` and `results/batch.csv`, and what has one there is not measured
again for the same code under the same conditions. Draws plots; ends in a line of JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from benchmarks.core.budget import Budget
from benchmarks.core.report import draw_bars, print_json, print_table
from benchmarks.core.roofline import measure_ceiling
from benchmarks.core.rows import Results, Row
from benchmarks.core.setup import add_arguments, place_of
from benchmarks.engine.batch_sweep import COLUMNS as SWEEP_COLUMNS
from benchmarks.engine.batch_sweep import KEY as SWEEP_KEY
from benchmarks.engine.batch_sweep import Sweep, draw_sweep
from benchmarks.engine.ladder import rungs_of
from benchmarks.engine.ladder_run import COLUMNS, KEY, Climb, Workload
from models.allocation import hold_memory
from service.logs import configure_logging


def draw_ladder(arguments: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Draw the first workload's rungs, with the floor."""
    size, steps = str(arguments.sizes[0]), str(arguments.steps[0])
    shown = [row for row in rows if (str(row["size"]), str(row["steps"])) == (size, steps)]
    if shown:
        values = {str(row["rung"]): float(row["p50_ms"]) for row in shown}
        label = f"ms a picture, {size} x {size}, {steps} steps, one request at a time"
        floor_ms = min(float(row["floor_ms"]) for row in shown)
        draw_bars(arguments.results / "engine.png", values, label, floor_ms)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser, budget_s=600)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512], help="the first one first")
    parser.add_argument("--steps", type=int, nargs="+", default=[4])
    parser.add_argument("--rungs", nargs="+", default=[], help="some of the ladder; else all")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warm-ups", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of the ceiling's matrices")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    arguments = _arguments(words)
    place, budget = place_of(arguments), Budget(arguments.budget)
    beside = place.conditions()
    tables = {
        name: Results(arguments.results / f"{name}.csv", key, beside, anew=arguments.anew)
        for name, key in (("engine", KEY), ("batch", SWEEP_KEY))
    }
    ceiling = measure_ceiling(place, arguments.scale)
    rungs = rungs_of(place, arguments.rungs)
    climb = Climb(place, rungs, ceiling, tables["engine"], arguments.rounds, arguments.warm_ups)
    sweep = Sweep(place, ceiling, tables["batch"], arguments.rounds, arguments.warm_ups)
    with Progress(console=Console(stderr=True)) as progress:
        for size in arguments.sizes:
            climb.run(size, arguments.steps, budget, progress)
            sweep.run(size, arguments.batches, budget, progress)
    left = [
        f"{name} at {size}, {steps} steps"
        for size in arguments.sizes
        for steps in arguments.steps
        for name in climb.left(Workload(size, steps))
    ] + [
        f"{batch} at {size}"
        for size in arguments.sizes
        for batch in sweep.left(size, arguments.batches)
    ]
    print_table("one request at a time", tables["engine"].rows, COLUMNS)
    print_table("rows that share a call", tables["batch"].rows, SWEEP_COLUMNS)
    draw_ladder(arguments, tables["engine"].rows)
    draw_sweep(arguments.results / "batch.png", tables["batch"].rows)
    print_json([row for table in tables.values() for row in table.added], left)
    if climb.faults:
        sys.exit("; ".join(climb.faults.values()))


if __name__ == "__main__":
    configure_logging("console")  # to standard error: the JSON stands alone
    hold_memory()  # as an engine does when it serves
    main()
