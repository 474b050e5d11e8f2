"""Two engines against one on this machine, and the prediction of the capacity model.

    python -m benchmarks.service.scaling

Lanes in turn, each the whole service as `instant-refine serve` starts it, on the bundled checkpoint
at 512 x 512 with 4 steps: one engine with one thread and one client (the model's input); with 8
clients, one engine with all threads, and two engines with a thread each; and the same on Ray, one
replica and two.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator, Sequence
from functools import partial

import psutil

from benchmarks.core.environment import environment
from benchmarks.core.experiment import Case, Experiment, Session, add_run_arguments, conduct
from benchmarks.core.rows import Row
from benchmarks.core.timing import interleave
from benchmarks.service.served import run_json, served

_CLIENTS = 8
_ONE_THREAD = {"REFINE_NUM_THREADS": "1"}
_ON_RAY = {"REFINE_RAY": "local", "REFINE_RAY_CPUS_PER_ENGINE": "0.5", **_ONE_THREAD}
_LANES = {
    "alone": (1, _ONE_THREAD),
    "one": (_CLIENTS, {}),
    "two": (_CLIENTS, {"REFINE_DEVICE": "cpu,cpu", **_ONE_THREAD}),
    "ray_one": (_CLIENTS, {**_ON_RAY, "REFINE_RAY_MIN_ENGINES": "1"}),
    "ray_two": (_CLIENTS, {**_ON_RAY, "REFINE_RAY_MIN_ENGINES": "2"}),
}
"""Clients and settings of each."""


class Scaling(Experiment):
    """One row for this machine."""

    title = "two engines against one"
    table = "scaling"
    key = ("clients",)
    columns = (
        "one_engine_pictures_per_s", "two_engines_pictures_per_s", "two_vs_one",
        "ray_one_pictures_per_s", "ray_two_pictures_per_s", "ray_two_vs_one",
        "two_engines_predicted", "measured_vs_predicted", "front_core_ms", "engine_core_ms",
    )  # fmt: skip

    def __init__(self, rounds: int, seconds: float) -> None:
        super().__init__({"dtype": "float32", "shape": "512x512", "steps": 4, **environment()})
        self._rounds, self._seconds = rounds, seconds

    def groups(self) -> Sequence[Sequence[Case]]:
        return [[{"clients": _CLIENTS}]]

    def run(self, cases: Sequence[Case], session: Session) -> Iterator[Row]:
        lanes = {
            name: partial(serve_load, clients, self._seconds, settings)
            for name, (clients, settings) in _LANES.items()
        }
        seen = interleave(lanes, session, rounds=self._rounds)
        means = {
            name: {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
            for name, runs in seen.items()
        }
        rates = {name: mean["pictures_per_s"] for name, mean in means.items()}
        predicted = predicted_pictures_per_s(means["alone"], 2, os.cpu_count() or 1)
        values = (
            rates["one"], rates["two"], rates["two"] / rates["one"],
            rates["ray_one"], rates["ray_two"], rates["ray_two"] / rates["ray_one"],
            predicted, rates["two"] / predicted,
            1000 * means["alone"]["front_core_s"], 1000 * means["alone"]["engine_core_s"],
        )  # fmt: skip
        figures = zip(self.columns, values, strict=True)
        yield {**cases[0], **{name: round(value, 3) for name, value in figures}}


def serve_load(clients: int, seconds: float, settings: dict[str, str]) -> dict[str, float]:
    """Return pictures a second, and core seconds a picture of the front and of the engines."""
    with served({"REFINE_DTYPE": "float32", **settings}) as service:
        front = service.front
        engines = front.children()  # on Ray: the processes of the cluster that it has started
        before = _core_s([front]), _core_s(engines)
        words = [service.url, "--clients", str(clients), "--seconds", str(seconds)]
        load = run_json("benchmarks.service.load", *words)
        count = len(load["samples"])
        return {
            "pictures_per_s": count / load["seconds"],
            "front_core_s": (_core_s([front]) - before[0]) / count,
            "engine_core_s": (_core_s(engines) - before[1]) / count,
        }


def _core_s(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(used.user + used.system for used in times))


def predicted_pictures_per_s(alone: dict[str, float], engines: int, cores: int) -> float:
    """Predict `engines` with a thread each from one engine with one client.

    Engines add up until the cores are used up; a picture costs what its engine and the front use.
    """
    by_cores = cores / (alone["front_core_s"] + alone["engine_core_s"])
    return min(engines / alone["engine_core_s"], by_cores)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load")
    add_run_arguments(parser, budget_s=900)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse(words)
    conduct([Scaling(arguments.rounds, arguments.seconds)], arguments)


if __name__ == "__main__":
    main()
