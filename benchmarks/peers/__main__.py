"""Our engine against diffusers and StreamDiffusion's recipe, side by side: lanes A to F.

    python -m benchmarks.peers  pocket on this machine's CPU
    python -m benchmarks.peers --device cuda --compiled --checkpoint FOLDER

First each lane makes the same picture: who makes another one, or fails, is left out, and the exit
code is 1. Then they are timed in turn, A-E-B-A-E-B: one request at a time, and `--users` requests
at once that are mixed in steps, strength, guidance, prompt and seed (`results/peers.csv`); and C
and F on one user's stream of frames (`results/stream.csv`). What has a row is left out. Draws a
plot; ends in a line of JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from benchmarks.core.budget import Budget
from benchmarks.core.report import draw_bars, print_json, print_table
from benchmarks.core.rows import Results, Row
from benchmarks.core.setup import add_arguments, place_of
from benchmarks.lanes.registry import CROWD, STREAM, Team, contenders_of
from benchmarks.peers.comparison import CROWD_COLUMNS, STREAM_COLUMNS, Race, crowd_rows, stream_rows
from models.allocation import hold_memory
from models.device import default_batch
from service.logs import configure_logging


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser, budget_s=600)
    parser.add_argument("--lanes", nargs="+", default=[], help="some of them; else all")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4, help="of the lone request and the stream")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--max-batch", type=int, default=0, help="0: as the service has it")
    parser.add_argument("--compiled", action="store_true", help="all that can be")
    parser.add_argument("--frames", type=int, default=16, help="of the stream, in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-ups", type=int, default=1)
    return parser.parse_args(words)


def _draw(arguments: argparse.Namespace, rows: Sequence[Row]) -> None:
    if rows:
        values = {f"{row['lane']}: {row['what']}": float(row["pictures_per_s"]) for row in rows}
        label = f"pictures a second, {arguments.users} users at once"
        draw_bars(arguments.results / "peers.png", values, label)


def main(words: Sequence[str] | None = None) -> None:
    arguments = _arguments(words)
    place, budget = place_of(arguments), Budget(arguments.budget)
    max_batch = arguments.max_batch or default_batch(place.device)
    team = Team(place, arguments.size, max_batch, is_compiled=arguments.compiled)
    said = {"size": arguments.size, "max_batch": max_batch, "is_compiled": arguments.compiled}
    beside = {**said, **place.conditions()}
    crowd_beside = {"users": arguments.users, "steps": arguments.steps, **beside}
    stream_beside = {"steps": arguments.steps, **beside}
    crowd, stream = (
        Results(arguments.results / f"{name}.csv", ("lane",), alike, anew=arguments.anew)
        for name, alike in (("peers", crowd_beside), ("stream", stream_beside))
    )
    race = Race(
        team, arguments.steps, arguments.users, arguments.frames, arguments.rounds,
        arguments.warm_ups,
    )  # fmt: skip
    streamers = contenders_of(STREAM, team, arguments.lanes) if place.streams else []
    runners = contenders_of(CROWD, team, arguments.lanes)
    with Progress(console=Console(stderr=True)) as progress:
        race.run(runners, crowd, budget, progress, crowd_rows)
        race.run(streamers, stream, budget, progress, stream_rows)
    left = [
        one.letter
        for results, some in ((crowd, runners), (stream, streamers))
        for one in some
        if not results.is_done(lane=one.letter)
    ]
    print_table(f"alone, and {arguments.users} users at once", crowd.rows, CROWD_COLUMNS)
    print_table("one user's stream", stream.rows, STREAM_COLUMNS)
    _draw(arguments, crowd.rows)
    print_json([*crowd.added, *stream.added], left)
    if race.faults:
        sys.exit("; ".join(race.faults.values()))


if __name__ == "__main__":
    configure_logging("console")
    hold_memory()  # as an engine does when it serves
    main()
