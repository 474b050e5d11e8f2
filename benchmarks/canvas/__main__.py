"""How long after the pen moves is it seen: a drawing at its true speed, over WebSocket and HTTP.

    python -m benchmarks.canvas                      (part of make bench)
    python -m benchmarks.canvas --seconds 4 --painters 1 --rounds 1
    python -m benchmarks.canvas --url http://gpu-box:8000 --key ...

Motion-to-image is counted from each point of the pen to the first picture that holds it. Lanes
are interleaved A-B-A-B for 1, 4 and 16 painters, who draw the same, a little apart. Without `--url`
a server on the bundled checkpoint is started beside. Prints a table, appends rows to
`benchmarks/results/canvas.csv`, and ends in a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.canvas.clients import LANES, Record, paint
from benchmarks.canvas.drawing import Drawing, load_drawing
from benchmarks.core.environment import conditions
from benchmarks.core.rows import append_row
from benchmarks.service.served import model_of, served
from service.bench.report import percentile

RESULTS = Path(__file__).parents[1] / "results" / "canvas.csv"
_APART_S = 0.37
"""What lies between the beginnings of two painters, lest all draw in step."""

_FIGURES = (
    "lane",
    "painters",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "worst_p95_over_mean",
    "shown",
    "replaced",
    "errors",
)


async def run_painters(
    lane: str, number: int, url: str, key: str | None, drawing: Drawing
) -> list[Record]:
    """Let so many painters draw at once; return what each saw."""

    async def one(index: int) -> Record:
        await asyncio.sleep(index * _APART_S)
        return await paint(lane, url, key, drawing)

    return list(await asyncio.gather(*(one(index) for index in range(number))))


def figures(records: list[Record], drawing: Drawing) -> dict[str, float]:
    """Return what the painters of a lane saw, over all their rounds."""
    by_painter = [record.motion_to_image_ms(drawing) for record in records]
    together = [latency for latencies in by_painter for latency in latencies]
    p95s = [percentile(latencies, 0.95) for latencies in by_painter]
    return {
        "p50_ms": percentile(together, 0.5),
        "p95_ms": percentile(together, 0.95),
        "p99_ms": percentile(together, 0.99),
        "worst_p95_over_mean": max(p95s) / max(statistics.mean(p95s), 1e-9),
        "sent": sum(record.sent for record in records),
        "shown": sum(len(record.shown_points) for record in records),
        "replaced": sum(record.replaced for record in records),
        "errors": sum(record.errors for record in records),
    }


def measure(
    url: str, key: str | None, drawing: Drawing, painters: list[int], rounds: int
) -> list[dict[str, Any]]:
    """Run all lanes in turn; return a row for each lane and number of painters."""
    seen: dict[tuple[int, str], list[Record]] = {}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("lanes", total=len(painters) * rounds * len(LANES))
        for number in painters:
            for _ in range(rounds):
                for lane in LANES:
                    progress.update(task, description=f"{lane}, painters: {number}")
                    records = asyncio.run(run_painters(lane, number, url, key, drawing))
                    seen.setdefault((number, lane), []).extend(records)
                    progress.advance(task)
    return [
        {"lane": lane, "painters": number, "rounds": rounds, **_rounded(figures(records, drawing))}
        for (number, lane), records in seen.items()
    ]


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(*_FIGURES)
    for row in rows:
        table.add_row(*(str(row[name]) for name in _FIGURES))
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--key", help="its key, if it wants one")
    parser.add_argument("--painters", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, help="draw only so much of the drawing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where rows are kept")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    drawing = load_drawing()
    if arguments.seconds is not None:
        drawing = drawing.up_to(1000 * arguments.seconds)

    def run(url: str) -> list[dict[str, Any]]:
        rows = measure(url, arguments.key, drawing, arguments.painters, arguments.rounds)
        seconds = round(drawing.points[-1].at_ms / 1000, 1)
        beside = {"seconds": seconds, **model_of(url, arguments.key), **conditions()}
        return [{**row, **beside} for row in rows]

    if arguments.url:
        rows = run(arguments.url)
    else:
        with served() as service:
            rows = run(service.url)
    for row in rows:
        append_row(arguments.results, row)
    Console().print(_table(rows))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
