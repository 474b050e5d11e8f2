"""The whole service: what its front costs, what it carries under load, how long a start takes.

    python -m benchmarks.service  pocket on this machine's CPU
    python -m benchmarks.service --device cuda --compiled --checkpoint FOLDER
    python -m benchmarks.service --parts load --url http://gpu-box:8000

Parts, in this order: `front` (a CPU's alone, see `front_cost.py`; `results/service.csv`), `load`
(closed loops of 1 to 32 users, and mixed requests at random moments at 25 to 110 % of capacity;
`results/load.csv`), and `start` (to ready and to the first picture; `results/start.csv`). What has
a row is left out. Draws a plot; ends in a line of JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from benchmarks.core.budget import Budget
from benchmarks.core.environment import conditions
from benchmarks.core.report import draw_lines, print_json, print_table
from benchmarks.core.rows import Results, Row
from benchmarks.core.setup import Place, add_arguments, place_of
from benchmarks.service import cold_start, front_cost, load_points
from benchmarks.service.cold_start import COMPILED, EAGER, left_of, measure_starts
from benchmarks.service.load_points import Loader, points
from benchmarks.service.served import model_of, run_json, served
from service.bench.load import Target
from service.logs import configure_logging

PARTS = ("front", "load", "start")
_FRONT_CLIENTS = 8
_LIMIT_MS = {"cpu": 3000.0, "cuda": 300.0}


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser, budget_s=900)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--url", help="a server that runs already, for the load")
    parser.add_argument("--key", default="", help="its key, if it wants one")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.25, 0.5, 0.75, 0.9, 1.1])
    parser.add_argument("--capacity", type=float, default=0.0, help="pictures/s that shares are of")
    parser.add_argument("--limit", type=float, default=0.0, help="ms; else 300, on a CPU 3000")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=3, help="of the front's lanes")
    parser.add_argument("--compiled", action="store_true", help="serve compiled; time such starts")
    return parser.parse_args(words)


def _settings(place: Place, arguments: argparse.Namespace) -> dict[str, str]:
    """Return the settings of the services that are started here."""
    model = {f"REFINE_{name.upper()}": value for name, value in place.model().items()}
    return {
        **model,
        "REFINE_DEVICE": place.device,
        "REFINE_DTYPE": place.dtype_name,
        "REFINE_COMPILE": "full" if arguments.compiled else "off",
        "REFINE_CACHE_DIR": str(place.cache),
        "REFINE_HOT_SHAPES": "512x512,640x640",
        # All callers of a load are one, who may have as many waiting as there are.
        "REFINE_QUEUE_SIZE": "1024",
        "REFINE_QUEUE_PER_KEY": "1024",
    }


@contextmanager
def _server(place: Place, arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.url:
        yield arguments.url.rstrip("/")
        return
    with served(_settings(place, arguments), ready_within_s=3600) as service:
        yield service.url


class Run:
    """One run of the parts that were asked for, with the tables of their rows."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._place, self._budget = place_of(arguments), Budget(arguments.budget)
        beside = self._place.conditions()
        if arguments.url:
            model = model_of(arguments.url, arguments.key or None)
            beside = {"url": arguments.url, **model, **conditions()}
        said = {"seconds": arguments.seconds, "is_compiled": arguments.compiled, **beside}
        self.service = self._table("service", ("clients",), conditions())
        self.load = self._table("load", load_points.KEY, said)
        self.start = self._table("start", cold_start.KEY, beside)
        limit_ms = arguments.limit or _LIMIT_MS[str(beside["device"]).split(":")[0]]
        self._wanted = points(arguments.users, arguments.shares)
        self._starts = (*EAGER, *COMPILED) if arguments.compiled else EAGER
        self._loader = Loader(
            Target("", key=arguments.key), self.load, arguments.seconds, limit_ms,
            arguments.capacity,
        )  # fmt: skip

    def _table(self, name: str, key: tuple[str, ...], beside: Row) -> Results:
        path = self._arguments.results / f"{name}.csv"
        return Results(path, key, beside, anew=self._arguments.anew)

    def left(self) -> dict[str, list[str]]:
        """Return what has no row yet, by part."""
        found = {
            "front": []
            if self._place.is_cuda or self.service.is_done(clients=_FRONT_CLIENTS)
            else ["front"],
            "load": [str(point) for point in self._loader.left(self._wanted)],
            "start": [start.name for start in left_of(self._starts, self.start)],
        }
        return {part: names for part, names in found.items() if part in self._arguments.parts}

    def measure(self, progress: Progress) -> None:
        """Measure what is left, part by part, until the budget is spent."""
        for part, names in self.left().items():
            if names and not self._budget.is_spent:
                getattr(self, f"_measure_{part}")(progress)

    def _measure_front(self, progress: Progress) -> None:
        task = progress.add_task("the front", total=1)
        words = ["--rounds", str(self._arguments.rounds), "--clients", str(_FRONT_CLIENTS)]
        figures = run_json("benchmarks.service.front_cost", *words)
        said = {"clients": _FRONT_CLIENTS, "dtype": "float32", "shape": "512x512", "steps": 4}
        self.service.add({**figures, **said})
        progress.advance(task)

    def _measure_load(self, progress: Progress) -> None:
        with _server(self._place, self._arguments) as url:
            loader = self._loader.at(url)
            loader.warm_up()
            loader.run(self._wanted, self._budget, progress)

    def _measure_start(self, progress: Progress) -> None:
        settings = {**_settings(self._place, self._arguments), "REFINE_HOT_SHAPES": "512x512"}
        measure_starts(self._starts, settings, self.start, self._budget, progress)


def _draw(arguments: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Draw latencies over the share of capacity."""
    opened = [row for row in rows if row["loop"] == "open"]
    opened.sort(key=lambda row: float(row["share"]))
    if opened:
        shares = [float(row["share"]) for row in opened]
        lines = [
            (name, shares, [float(row[f"{name}_ms"]) for row in opened])
            for name in ("p50", "p95", "p99")
        ]
        draw_lines(arguments.results / "load.png", lines, ("share of capacity", "ms"))


def main(words: Sequence[str] | None = None) -> None:
    arguments = _arguments(words)
    run = Run(arguments)
    with Progress(console=Console(stderr=True)) as progress:
        run.measure(progress)
    print_table("the front", run.service.rows, front_cost.COLUMNS)
    print_table("under load", run.load.rows, load_points.COLUMNS)
    print_table("starts", run.start.rows, cold_start.COLUMNS)
    _draw(arguments, run.load.rows)
    tables = (run.service, run.load, run.start)
    left = [name for names in run.left().values() for name in names]
    print_json([row for table in tables for row in table.added], left)


if __name__ == "__main__":
    configure_logging("console")
    main()
