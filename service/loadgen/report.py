"""A run of the load generator in figures."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus

from rich.table import Table

from service.loadgen.loops import NO_ANSWER, Run


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of the values do not exceed; 0.0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def figures(run: Run, limit_ms: float) -> dict[str, float | int | str]:
    """Return what a run comes to. Goodput counts pictures that came within `limit_ms`."""
    pictures = [sample for sample in run.samples if sample.status == HTTPStatus.OK]
    latencies = [sample.latency_ms for sample in pictures]
    front = [sample.latency_ms - sample.engine_ms for sample in pictures]
    in_time = sum(latency <= limit_ms for latency in latencies)
    seconds = max(run.seconds, 1e-9)
    return {
        "requests": len(run.samples),
        "answers": _answers(run),
        "seconds": round(run.seconds, 1),
        "pictures_per_s": round(len(pictures) / seconds, 2),
        "goodput_per_s": round(in_time / seconds, 2),
        "limit_ms": limit_ms,
        **{
            f"p{round(100 * share)}_ms": round(percentile(latencies, share), 1)
            for share in (0.5, 0.95, 0.99)
        },
        "outside_engine_p50_ms": round(percentile(front, 0.5), 1),
    }


def _answers(run: Run) -> str:
    counts = Counter(sample.status for sample in run.samples)
    told = (
        f"{count} x {'no answer' if status == NO_ANSWER else status}"
        for status, count in sorted(counts.items())
    )
    return ", ".join(told) or "none"


def to_table(values: dict[str, float | int | str]) -> Table:
    """Return the figures as a table to print."""
    table = Table("figure", "value")
    for name, value in values.items():
        table.add_row(name, str(value))
    return table
