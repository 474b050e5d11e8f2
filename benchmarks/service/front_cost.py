"""What the front costs on a CPU: its overhead, its throughput against diffusers, its stalls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.core.environment import environment
from benchmarks.core.experiment import Case, Experiment, Session
from benchmarks.core.rows import Row
from benchmarks.service.served import run_json

_CLIENTS = 8


class FrontCost(Experiment):
    """The front in its own process, and diffusers' clients."""

    title = "the front"
    table = "service"
    key = ("clients",)
    columns = (
        "front_overhead_p50_ms", "ours_pictures_per_s", "diffusers_pictures_per_s", "ratio",
        "worst_loop_stall_ms", "ours_p50_ms", "ours_p99_ms", "diffusers_p50_ms",
        "diffusers_p99_ms", "engine_memory_mib",
    )  # fmt: skip

    def __init__(self, rounds: int, seconds: float) -> None:
        super().__init__({"dtype": "float32", "shape": "512x512", "steps": 4, **environment()})
        self._words = ["--rounds", str(rounds), "--seconds", str(seconds)]

    def groups(self) -> Sequence[Sequence[Case]]:
        return [[{"clients": _CLIENTS}]]

    def run(self, cases: Sequence[Case], session: Session) -> Iterator[Row]:
        for case in session.each(cases, "the front"):
            words = [*self._words, "--clients", str(case["clients"])]
            yield {**case, **run_json("benchmarks.service.front_process", *words)}
