"""Our engine against diffusers and StreamDiffusion's recipe, side by side.

    python -m benchmarks.peers                                    pocket on this machine's CPU
    python -m benchmarks.peers --device cuda --compiled --checkpoint FOLDER

Each lane first makes the same picture. A lane that fails or makes another one is not timed, and the
exit code is 1. Then they are timed in turn: one request at a time, and `--users` requests at once
that are mixed in steps, strength, guidance, prompt and seed (`results/peers.csv`); and two lanes on
one user's stream of frames (`results/stream.csv`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.core.experiment import conduct
from benchmarks.core.setup import setup_of, setup_parser
from benchmarks.lanes.registry import LaneFactory
from benchmarks.peers.comparison import ConcurrentRequests, UserStream
from models.malloc import disable_mmap
from models.runtime.device import default_batch
from service.logs import configure_logging


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = setup_parser(__doc__)
    parser.add_argument("--lanes", nargs="+", default=[], help="names of lanes; default all")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4, help="of the single request and the stream")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--max-batch", type=int, default=0, help="0: the service's default")
    parser.add_argument("--compiled", action="store_true", help="compile every lane that can be")
    parser.add_argument("--frames", type=int, default=16, help="of the stream, in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-ups", type=int, default=1)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse(words)
    setup = setup_of(arguments)
    max_batch = arguments.max_batch or default_batch(setup.device)
    factory = LaneFactory(setup, arguments.size, max_batch, is_compiled=arguments.compiled)
    conduct([ConcurrentRequests(factory, arguments), UserStream(factory, arguments)], arguments)


if __name__ == "__main__":
    configure_logging("console")
    disable_mmap()  # as an engine does when it serves
    main()
