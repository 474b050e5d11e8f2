"""The engine, technique by technique and batch by batch, against the machine's roofline.

    python -m benchmarks.engine                                   pocket on this machine's CPU
    python -m benchmarks.engine --device cuda --checkpoint FOLDER

In one run: the roofline (a large matrix product and a large copy); for each size the ladder from
eager diffusers to the final engine, rungs in turn (`results/engine.csv`); and each stage over the
rows that share a call (`results/batch.csv`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.core.experiment import conduct
from benchmarks.core.roofline import measure_roofline
from benchmarks.core.setup import setup_of, setup_parser
from benchmarks.engine.batch_sweep import BatchSweep
from benchmarks.engine.ladder_run import LadderRun
from models.malloc import disable_mmap
from service.logs import configure_logging


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = setup_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512], help="measured in order")
    parser.add_argument("--steps", type=int, nargs="+", default=[4])
    parser.add_argument("--rungs", nargs="+", default=[], help="names of rungs; default all")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warm-ups", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of the roofline's matrices")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse(words)
    setup = setup_of(arguments)
    roofline = measure_roofline(setup, arguments.scale)
    experiments = [kind(setup, roofline, arguments) for kind in (LadderRun, BatchSweep)]
    conduct(experiments, arguments)


if __name__ == "__main__":
    configure_logging("console")
    disable_mmap()  # as an engine does when it serves
    main()
