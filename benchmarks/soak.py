"""Serve a mix for a long time, and fail if memory, threads or open files of a process grow.

    python -m benchmarks.soak --seconds 1800

Ends in a table, a plot, a line of JSON, and the exit code 1 where something grew or an answer was
wrong. `--model pocket` serves the bundled checkpoint instead of a tiny random one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.conditions import conditions
from benchmarks.slopes import bound_mb_per_hour, has_grown, slope
from benchmarks.soak_load import Mix

SERVE = (str(Path(sys.executable).with_name("instant-refine")), "serve")
WARM_UP = 0.1
START_S = 180.0


@dataclass(frozen=True)
class Sample:
    """A process at a moment of the run."""

    time_s: float
    rss_mb: float
    num_threads: int
    num_files: int


@dataclass
class Report:
    """What a run showed: the samples of each process, the answers, and what is wrong with them."""

    seconds: float
    samples: dict[str, list[Sample]]
    answers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def settled(self, name: str) -> list[Sample]:
        return [one for one in self.samples[name] if one.time_s >= WARM_UP * self.seconds]

    def rows(self) -> list[dict[str, Any]]:
        """Judge each process: the slope of its memory in MB/h, and its counts, first and last."""
        return [_judge(name, self.settled(name), self.seconds) for name in self.samples]

    def all_failures(self) -> list[str]:
        grown = [
            f"{row['process']}: {name} grew"
            for row in self.rows()
            for name in ("memory", "threads", "files")
            if row[name] == "grows"
        ]
        return [*self.failures, *grown]


def _judge(name: str, samples: Sequence[Sample], seconds: float) -> dict[str, Any]:
    fit = slope([one.time_s for one in samples], [one.rss_mb for one in samples])
    threads, files = (
        [getattr(one, which) for one in samples] for which in ("num_threads", "num_files")
    )
    return {
        "process": name,
        "rss_mb": [round(samples[0].rss_mb, 1), round(samples[-1].rss_mb, 1)],
        "slope_mb_per_hour": {key: round(value, 2) for key, value in asdict(fit).items()},
        "bound_mb_per_hour": round(bound_mb_per_hour(seconds), 2),
        "memory": fit.verdict(bound_mb_per_hour(seconds)),
        "num_threads": [threads[0], threads[-1]],
        "threads": "grows" if has_grown(threads) else "holds",
        "num_files": [files[0], files[-1]],
        "files": "grows" if has_grown(files) else "holds",
    }  # fmt: skip


@contextmanager
def serving(
    command: Sequence[str], environment: dict[str, str], log: Path
) -> Iterator[tuple[str, psutil.Process]]:
    """Start a service on a free port; yield its address and its front once it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"REFINE_PORT": str(port), "REFINE_LOG_FORMAT": "json", **environment}
    with log.open("w") as file:
        front = subprocess.Popen(command, env={**os.environ, **settings}, stderr=file)
    try:
        url = f"http://127.0.0.1:{port}"
        ends = time.monotonic() + START_S
        while not _is_ready(url):
            if front.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"the service did not start: {log} says why")
            time.sleep(0.2)
        yield url, psutil.Process(front.pid)
    finally:
        front.terminate()
        try:
            front.wait(60)
        except subprocess.TimeoutExpired:
            front.kill()
            front.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url + "/health/ready", timeout=20).is_success
    except httpx.TransportError:
        return False


async def soak(
    command: Sequence[str], environment: dict[str, str], *, seconds: float, every_s: float,
    pace_s: float, out: Path,
) -> Report:  # fmt: skip
    """Serve the mix for some seconds, and look at front and engine every few."""
    with serving(command, environment, out / "soak.log") as (url, front):
        processes = {"front": front, "engine": front.children()[0]}
        report = Report(seconds, {name: [] for name in processes})
        mix = Mix(url, pace_s)
        load = asyncio.create_task(mix.run())
        try:
            await _watch(processes, report, every_s, out)
        except psutil.NoSuchProcess as error:
            report.failures.append(f"a process ended: {error}")
        load.cancel()
        await asyncio.wait({load})
        if not load.cancelled() and (fault := load.exception()) is not None:
            report.failures.append(f"the load broke: {fault!r}")
        report.answers = {" ".join(key): count for key, count in sorted(mix.counts.items())}
        report.failures += mix.failures()
    return report


async def _watch(
    processes: dict[str, psutil.Process], report: Report, every_s: float, out: Path
) -> None:
    began = time.monotonic()
    with (out / "samples.jsonl").open("w", buffering=1) as file:
        for number in track(range(int(report.seconds / every_s)), "soak", console=_console()):
            await asyncio.sleep(max(0.0, began + (number + 1) * every_s - time.monotonic()))
            for name, process in processes.items():
                sample = _look(process, time.monotonic() - began)
                report.samples[name].append(sample)
                file.write(json.dumps({"process": name, **asdict(sample)}) + "\n")


def _look(process: psutil.Process, time_s: float) -> Sample:
    with process.oneshot():
        rss_mb = process.memory_info().rss / 2**20
        return Sample(time_s, rss_mb, process.num_threads(), process.num_fds())


def _console() -> Console:
    return Console(stderr=True)


def tell(report: Report, out: Path) -> None:
    """Print the table and the line of JSON; draw the plot."""
    table = Table("process", "RSS MB", "MB/h (95 %)", "bound", "memory", "threads", "files")
    for row in report.rows():
        fit = row["slope_mb_per_hour"]
        table.add_row(
            row["process"],
            "{} to {}".format(*row["rss_mb"]),
            f"{fit['per_hour']} ({fit['low']} to {fit['high']})",
            str(row["bound_mb_per_hour"]),
            row["memory"],
            "{} to {}".format(*row["num_threads"]),
            "{} to {}".format(*row["num_files"]),
        )
    _console().print(table)
    draw(report, out / "soak.png")
    print(
        json.dumps(
            {
                "seconds": report.seconds,
                "processes": report.rows(),
                "answers": report.answers,
                "failures": report.all_failures(),
                **conditions(),
            }
        )
    )


def draw(report: Report, path: Path) -> None:
    """Plot each process's memory over minutes, its warm-up in grey."""
    figure = Figure(figsize=(7, 4), dpi=80, layout="constrained")
    for axes, (name, samples) in zip(
        figure.subplots(2, sharex=True), report.samples.items(), strict=True
    ):
        axes.plot([one.time_s / 60 for one in samples], [one.rss_mb for one in samples])
        axes.axvspan(0, WARM_UP * report.seconds / 60, color="0.9")
        axes.set_ylabel(f"{name}, MB")
    axes.set_xlabel("minutes")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples")
    parser.add_argument("--pace", type=float, default=0.5, help="seconds between a painter's calls")
    parser.add_argument("--model", default="tiny", help="tiny, or what REFINE_MODEL takes")
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(
            soak(
                SERVE,
                {"REFINE_MODEL": _model(arguments.model, Path(folder))},
                seconds=arguments.seconds,
                every_s=arguments.every,
                pace_s=arguments.pace,
                out=arguments.out,
            )
        )
    tell(report, arguments.out)
    sys.exit(bool(report.all_failures()))


def _model(name: str, folder: Path) -> str:
    if name != "tiny":
        return name
    from tests.checkpoints import write_checkpoint  # noqa: PLC0415 - needs torch, which pocket's soak does not

    return str(write_checkpoint(folder / "tiny"))


if __name__ == "__main__":
    main()
