"""All measurements that a machine can make, the most telling first, within a budget.

    python -m benchmarks.suite                  (make bench)      CUDA where there is one, else CPU
    python -m benchmarks.suite --device cuda    (make bench-gpu)  full-size random SD 1.5 weights

Each is a process of its own, is given what is left of the budget, and leaves out what has a row
already: run it again, and it goes on where it stopped. Ends in a line of JSON; the exit code is 1
where a measurement failed, such as that of quality.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.core.budget import Budget
from benchmarks.core.environment import conditions
from benchmarks.core.rows import Results
from models.device import pick_device

_ROOT = Path(__file__).parents[1]
_CACHE = Path(".bench-cache")
_RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Step:
    """A measurement: its module and arguments, and the share of what is left that it may take.

    Without a budget of its own it is run where its `table` has no row of this code and machine.
    `weights` names random ones, see `random_checkpoint`, that have to be at hand.
    """

    module: str
    words: tuple[str, ...] = ()
    share: float = 1.0
    table: str = ""
    weights: str = ""

    def is_done(self) -> bool:
        if not self.table:
            return False
        return bool(Results(_RESULTS / f"{self.table}.csv", ("commit",), conditions()).rows)


def cpu_steps() -> list[Step]:
    """Return what is measured on a CPU, on the bundled checkpoint."""
    return [
        Step("peers"),
        Step("engine"),
        Step("engine.quality"),
        Step("service"),
        Step("service.scaling", table="scaling"),
        Step("canvas", table="canvas"),
    ]


def cuda_steps(cache: Path = _CACHE) -> list[Step]:
    """Return what is measured on CUDA: the ladder and the lanes at 512, and then the rest."""
    place = ("--device", "cuda", "--checkpoint", str(cache / "sd15"))
    sdxl = ("--device", "cuda", "--checkpoint", str(cache / "sdxl"))
    often = ("--rounds", "100", "--warm-ups", "10")
    crowd = ("--compiled", "--max-batch", "16", "--rounds", "20")
    return [
        Step("engine", (*place, *often), share=0.5, weights="sd15"),
        Step("peers", (*place, *crowd, "--users", "16"), share=0.7),
        Step("engine.quality", place, share=0.5),
        Step("engine", (*place, *often, "--sizes", "512", "1024", "640", "--steps", "4", "8")),
        Step("service", (*place, "--compiled")),
        Step("peers", (*place, *crowd, "--users", "32")),
        *(
            Step("engine", (*place, *often, "--batches", "--rungs", rung, "--tune", tune))
            for tune, rung in (("max", "tuned"), ("off", "CUDA graphs"))
        ),
        Step("engine", (*sdxl, *often, "--sizes", "1024"), weights="sdxl"),
    ]


def run(steps: Sequence[Step], budget: Budget) -> tuple[list[str], list[str]]:
    """Run what is not done until the budget is spent; return what is left, and what failed."""
    left, failed = [], []
    for step in steps:
        if step.is_done():
            continue
        if budget.is_spent:
            left.append(step.module)
            continue
        if step.weights:
            _make(step.weights)
        print(f"{step.module}, {budget.left_s:.0f} s left", file=sys.stderr)
        ended = _run_module(step, budget)
        told = _last_json(ended.stdout)
        left += [f"{step.module}: {name}" for name in told]
        if ended.returncode:
            failed.append(step.module)
    return left, failed


def _run_module(step: Step, budget: Budget) -> subprocess.CompletedProcess[str]:
    words = step.words if step.table else (*step.words, "--budget", str(step.share * budget.left_s))
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{step.module}", *words],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": path},  # engines look into no current folder
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def _last_json(output: str) -> list[str]:
    """Return what a measurement says that it has left; nothing of one that says nothing."""
    lines = output.splitlines()
    try:
        told = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return []
    return told.get("left", []) if isinstance(told, dict) else []


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds, more or less")
    arguments = parser.parse_args(words)
    budget = Budget(arguments.budget)
    steps = cpu_steps() if pick_device(arguments.device) == "cpu" else cuda_steps()
    left, failed = run(steps, budget)
    print(json.dumps({"left": left, "failed": failed}))
    sys.exit(bool(failed))


def _make(name: str, cache: Path = _CACHE) -> None:
    """Make random weights where they are not at hand, whole or not at all."""
    from benchmarks.core.random_checkpoint import SIZES, write  # noqa: PLC0415 - seconds

    if not (cache / name).exists():
        write(SIZES[name], cache / f".{name}")
        (cache / f".{name}").rename(cache / name)


if __name__ == "__main__":
    main()
