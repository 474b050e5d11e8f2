"""All measurements that a machine can make, the most informative first, within a budget.

    python -m benchmarks.suite                  (make bench)      CUDA if there is one, else CPU
    python -m benchmarks.suite --device cuda    (make bench-gpu)  full-size random SD 1.5 weights

Each command runs in its own process with a share of the remaining budget, and skips cases that have
a row: another run continues. Ends in a line of JSON; the exit code is 1 if a command failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.core.budget import Budget
from benchmarks.service.served import module_environment
from models.runtime.device import pick_device

_CACHE = Path(".bench-cache")

RunCommand = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Step:
    """A command: its module under `benchmarks`, arguments, and share of the remaining budget.

    `weights` is a size of `random_checkpoint` that the command needs in the cache.
    """

    module: str
    words: tuple[str, ...] = ()
    share: float = 1.0
    weights: str = ""


def cpu_steps() -> list[Step]:
    """Return the commands for a CPU, on the bundled checkpoint."""
    modules = ("peers", "engine", "engine.quality", "service", "service.scaling", "canvas")
    return [Step(module) for module in modules]


def cuda_steps(cache: Path = _CACHE) -> list[Step]:
    """Return the commands for CUDA: the ladder and the lanes at 512 first."""
    sd15 = ("--device", "cuda", "--checkpoint", str(cache / "sd15"))
    sdxl = ("--device", "cuda", "--checkpoint", str(cache / "sdxl"))
    exact = ("--rounds", "100", "--warm-ups", "10")
    lanes = ("--compiled", "--max-batch", "16", "--rounds", "20")
    sizes = ("--sizes", "512", "1024", "640", "--steps", "4", "8")
    return [
        Step("engine", (*sd15, *exact), share=0.5, weights="sd15"),
        Step("peers", (*sd15, *lanes, "--users", "16"), share=0.7),
        Step("engine.quality", sd15, share=0.5),
        Step("engine", (*sd15, *exact, *sizes)),
        Step("service", (*sd15, "--compiled")),
        Step("peers", (*sd15, *lanes, "--users", "32")),
        *(
            Step("engine", (*sd15, *exact, "--batches", "--rungs", rung, "--tune", tune))
            for tune, rung in (("max", "tuned"), ("off", "CUDA graphs"))
        ),
        Step("engine", (*sdxl, *exact, "--sizes", "1024"), weights="sdxl"),
    ]


def run_command(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks...` in its own process; return its output."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=Path(__file__).parents[1],
        env=module_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def run(
    steps: Sequence[Step], budget: Budget, command: RunCommand = run_command
) -> tuple[list[str], list[str]]:
    """Run steps until the budget is spent; return what is left, and the modules that failed."""
    left, failed = [], []
    for step in steps:
        if budget.is_spent:
            left.append(step.module)
            continue
        if step.weights:
            _write_weights(step.weights)
        print(f"{step.module}, {budget.left_s:.0f} s left", file=sys.stderr)
        seconds = str(step.share * budget.left_s)
        ended = command([f"benchmarks.{step.module}", *step.words, "--budget", seconds])
        left += [f"{step.module}: {case}" for case in _left_of(ended.stdout)]
        if ended.returncode:
            failed.append(step.module)
    return left, failed


def _left_of(output: str) -> list[str]:
    """Return the cases that a command's last line says are left; none if it has no such line."""
    try:
        summary = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        return []
    return summary.get("left", []) if isinstance(summary, dict) else []


def _write_weights(name: str, cache: Path = _CACHE) -> None:
    """Write random weights unless they exist, completely or not at all."""
    from benchmarks.core.random_checkpoint import SIZES, write  # noqa: PLC0415 - seconds

    if not (cache / name).exists():
        write(SIZES[name], cache / f".{name}")
        (cache / f".{name}").rename(cache / name)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds, approximately")
    arguments = parser.parse_args(words)
    steps = cpu_steps() if pick_device(arguments.device) == "cpu" else cuda_steps()
    left, failed = run(steps, Budget(arguments.budget))
    print(json.dumps({"left": left, "failed": failed}))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
