"""A closed loop of users against a server, in its own process: no lock is shared with the server.

    python -m benchmarks.service.load URL --clients 8 --seconds 20

Prints one line of JSON: the seconds that the run took, and for each picture its latency and the
part of it that the engine accounts for, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from http import HTTPStatus

from service.loadgen.loops import Target, closed_loop
from service.loadgen.workload import Trace


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    target, bodies = Target(arguments.url), Trace().bodies()
    run = asyncio.run(
        closed_loop(target, bodies, users=arguments.clients, seconds=arguments.seconds)
    )
    refused = [sample.status for sample in run.samples if sample.status != HTTPStatus.OK]
    if refused:
        sys.exit(f"the server refused {len(refused)} requests, the first with {refused[0]}")
    samples = [(sample.latency_ms, sample.engine_ms) for sample in run.samples]
    print(json.dumps({"seconds": run.seconds, "samples": samples}))


if __name__ == "__main__":
    main()
