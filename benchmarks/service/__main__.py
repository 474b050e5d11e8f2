"""The whole service: what its front costs, what it carries under load, how long a start takes.

    python -m benchmarks.service                            pocket on this machine's CPU
    python -m benchmarks.service --device cuda --compiled --checkpoint FOLDER
    python -m benchmarks.service --parts load --url http://gpu-box:8000

Parts, in this order: `front` (on a CPU only; see `front_process.py`; `results/service.csv`), `load`
(closed loops of 1 to 32 users, and mixed requests at random times at 25 to 110 % of capacity;
`results/load.csv`), and `start` (to ready and to the first picture; `results/start.csv`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.core.environment import environment
from benchmarks.core.experiment import Experiment, conduct
from benchmarks.core.setup import Setup, setup_of, setup_parser
from benchmarks.service.cold_start import ColdStart
from benchmarks.service.front_cost import FrontCost
from benchmarks.service.load_points import LoadPoints
from benchmarks.service.served import model_of, served
from service.logs import configure_logging

_PARTS = ("front", "load", "start")
_LIMIT_MS = {"cpu": 3000.0, "cuda": 300.0}
_FRONT_SECONDS = 15.0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = setup_parser(__doc__, budget_s=900)
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--url", help="load this running server")
    parser.add_argument("--key", default="", help="an API key of that server")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.25, 0.5, 0.75, 0.9, 1.1])
    parser.add_argument("--capacity", type=float, default=0.0, help="pictures/s; default measured")
    parser.add_argument("--limit", type=float, default=0.0, help="ms; default 300, on a CPU 3000")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=3, help="of the front's lanes")
    parser.add_argument("--compiled", action="store_true", help="serve compiled; time such starts")
    return parser.parse_args(words)


def experiments_of(arguments: argparse.Namespace) -> list[Experiment]:
    setup = setup_of(arguments)
    conditions = setup.conditions()
    settings = _settings(setup, is_compiled=arguments.compiled)

    @contextmanager
    def serve() -> Iterator[str]:
        if arguments.url:
            yield arguments.url.rstrip("/")
            return
        with served(settings, ready_within_s=3600) as service:
            yield service.url

    found: list[Experiment] = []
    if "front" in arguments.parts and not setup.is_cuda:
        found.append(FrontCost(arguments.rounds, _FRONT_SECONDS))
    if "load" in arguments.parts:
        of_server = conditions
        if arguments.url:
            model = model_of(arguments.url, arguments.key)
            of_server = {"url": arguments.url, **model, **environment()}
        device = str(of_server["device"]).partition(":")[0]
        described = {"seconds": arguments.seconds, "is_compiled": arguments.compiled}
        found.append(
            LoadPoints(
                serve,
                {**described, **of_server},
                users=arguments.users,
                shares=arguments.shares,
                seconds=arguments.seconds,
                limit_ms=arguments.limit or _LIMIT_MS[device],
                capacity_per_s=arguments.capacity,
                key=arguments.key,
            )
        )
    if "start" in arguments.parts:
        one_shape = {**settings, "REFINE_WARMUP_SHAPES": "512x512"}
        found.append(ColdStart(one_shape, conditions, is_compiled=arguments.compiled))
    return found


def _settings(setup: Setup, *, is_compiled: bool) -> dict[str, str]:
    """Return the settings of the services that are started here."""
    return {
        **{f"REFINE_{name.upper()}": value for name, value in setup.model().items()},
        "REFINE_DEVICE": setup.device,
        "REFINE_DTYPE": setup.dtype_name,
        "REFINE_COMPILE": "full" if is_compiled else "off",
        "REFINE_CACHE_DIR": str(setup.cache),
        "REFINE_WARMUP_SHAPES": "512x512,640x640",
        # All users of a load are one caller, and may all wait at once.
        "REFINE_QUEUE_SIZE": "1024",
        "REFINE_QUEUE_PER_KEY": "1024",
    }


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse(words)
    conduct(experiments_of(arguments), arguments)


if __name__ == "__main__":
    configure_logging("console")
    main()
