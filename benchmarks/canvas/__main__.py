"""Motion to image: from a movement of the pen to the picture, over WebSocket and HTTP.

    python -m benchmarks.canvas                            (part of make bench)
    python -m benchmarks.canvas --seconds 4 --users 1 --rounds 1
    python -m benchmarks.canvas --url http://gpu-box:8000 --key ...

The time from each point of the pen to the first picture that holds it. WebSocket and HTTP run in
turn for 1, 4 and 16 users, who draw the same at its true speed and start a little after each other
(`results/canvas.csv`). Without `--url` a server on the bundled checkpoint is started.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.canvas.clients import CLIENTS, Record, draw
from benchmarks.canvas.drawing import Drawing, load_drawing
from benchmarks.core.environment import environment
from benchmarks.core.experiment import Case, Experiment, Session, add_run_arguments, conduct
from benchmarks.core.rows import Row
from benchmarks.core.timing import interleave
from benchmarks.service.served import model_of, served
from service.loadgen.report import percentile

_START_INTERVAL_S = 0.37  # between the starts of two users, who would draw in step without it


class MotionToImage(Experiment):
    """Each way to the service for each number of users."""

    title = "from the pen to the picture"
    table = "canvas"
    key = ("lane", "users")
    columns = (
        *key, "p50_ms", "p95_ms", "p99_ms", "worst_p95_over_mean", "shown", "replaced", "errors",
    )  # fmt: skip

    def __init__(
        self, url: str, conditions: Mapping[str, Any], drawing: Drawing,
        arguments: argparse.Namespace,
    ) -> None:  # fmt: skip
        super().__init__(conditions)
        self._url, self._drawing, self._arguments = url, drawing, arguments

    def groups(self) -> Sequence[Sequence[Case]]:
        return [
            [{"lane": lane, "users": users} for lane in CLIENTS] for users in self._arguments.users
        ]

    def run(self, cases: Sequence[Case], session: Session) -> Iterator[Row]:
        users, rounds = cases[0]["users"], self._arguments.rounds
        lanes = {case["lane"]: partial(self._draw, case["lane"], users) for case in cases}
        seen = interleave(lanes, session, rounds=rounds, title=f"{users} users")
        for case in cases:
            records = [record for records in seen[case["lane"]] for record in records]
            yield {**case, "rounds": len(seen[case["lane"]]), **figures(records, self._drawing)}

    def _draw(self, lane: str, users: int) -> list[Record]:
        """Let so many users draw at once; return what each saw."""

        async def one(index: int) -> Record:
            await asyncio.sleep(index * _START_INTERVAL_S)
            return await draw(lane, self._url, self._arguments.key, self._drawing)

        async def together() -> list[Record]:
            return list(await asyncio.gather(*map(one, range(users))))

        return asyncio.run(together())


def figures(records: Sequence[Record], drawing: Drawing) -> dict[str, float]:
    """Return what the users of a lane saw, over all rounds."""
    by_user = [record.motion_to_image_ms(drawing) for record in records]
    latencies = [latency for one in by_user for latency in one]
    p95s = [percentile(one, 0.95) for one in by_user]
    values = {f"p{round(100 * share)}_ms": percentile(latencies, share)
              for share in (0.5, 0.95, 0.99)}  # fmt: skip
    return {
        **{name: round(value, 2) for name, value in values.items()},
        "worst_p95_over_mean": round(max(p95s) / max(statistics.mean(p95s), 1e-9), 2),
        "sent": sum(record.sent for record in records),
        "shown": sum(len(record.shown_points) for record in records),
        "replaced": sum(record.replaced for record in records),
        "errors": sum(record.errors for record in records),
    }


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", help="measure this running server")
    parser.add_argument("--key", help="an API key of that server")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="draw only so much")
    add_run_arguments(parser, budget_s=600)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse(words)
    drawing = load_drawing().up_to(1000 * arguments.seconds)

    def run(url: str) -> None:
        seconds = round(drawing.points[-1].at_ms / 1000, 1)
        model = model_of(url, arguments.key)
        conditions = {"seconds": seconds, **model, **environment()}
        conduct([MotionToImage(url, conditions, drawing, arguments)], arguments)

    if arguments.url:
        run(arguments.url.rstrip("/"))
    else:
        with served() as service:
            run(service.url)


if __name__ == "__main__":
    main()
