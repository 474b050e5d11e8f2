"""Serve mixed load for a long time; fail if memory, threads, files or tasks of a process grow.

    python -m benchmarks.soak --seconds 1800
    python -m benchmarks.soak --judge      # again, from the samples of a run, even a killed one

Ends in a table, a plot, a line of JSON, and the exit code 1 if something grew or an answer was
wrong. A first signal ends a run early: its samples are judged, and the run has failed. The model
is a tiny one with random weights unless `--model` names another. `--serve` gives the command that
starts the service, such as one with an engine that leaks.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import track

from benchmarks.core.experiment import RESULTS
from benchmarks.service.served import SERVE, served
from benchmarks.soak.load import MixedLoad
from benchmarks.soak.report import Report, Sample, bin_s, publish, read_samples

_READY_WITHIN_S = 180.0
_DEADLINE_S = 30.0  # the service's default
_PAUSE_S = 7.0  # an idle engine gives back memory after 5
_MIN_PERIOD_S = 50.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TASKS = {"front": "refine_loop_tasks ", "engine": 'refine_engine_jobs{engine="0"} '}
_BLOCKS = {
    "front": "refine_python_blocks ", "engine": 'refine_engine_python_blocks{engine="0"} ',
}  # fmt: skip


async def soak(
    command: Sequence[str], settings: Mapping[str, str], *, seconds: float, every_s: float,
    pace_s: float, out: Path,
) -> Report:  # fmt: skip
    """Serve the load for some seconds, and sample front and engine every `every_s`."""
    report = Report(seconds)
    with served(
        {"REFINE_LOG_FORMAT": "json", **settings},
        command=command,
        log=out / "soak.log",
        ready_within_s=_READY_WITHIN_S,
        deadline_s=_DEADLINE_S,
    ) as service:
        load = MixedLoad(service.url, pace_s)
        loading = asyncio.create_task(load.run())
        sampling = asyncio.create_task(_sample(load, service.front, report, every_s, out))
        pausing = asyncio.create_task(_pause(load, bin_s(seconds), every_s))
        for signum in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(signum, sampling.cancel)
        await asyncio.wait({loading, sampling}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            report.failures.append(f"the load ended: {loading.exception()!r}")
        sampling.cancel()
        await asyncio.wait({sampling})
        if sampling.cancelled():
            report.failures.append(f"cut at {report.seen_s:.0f} s of {seconds:.0f}")
        elif fault := sampling.exception():
            report.failures.append(f"a process or its metrics ended: {fault!r}")
        for task in (loading, pausing):
            task.cancel()
        await asyncio.wait({loading, pausing})
    report.answers = {" ".join(key): count for key, count in sorted(load.counts.items())}
    report.failures += load.failures(report.seen_s)
    return report


async def _pause(load: MixedLoad, period_s: float, every_s: float) -> None:
    """Pause the load once in each bin of the slopes, for as long as a sample needs.

    The memory of a paused process is what it keeps: beside upscales it swings by tens of megabytes.
    """
    if period_s < _MIN_PERIOD_S:
        return
    await load.is_warm.wait()
    began = time.monotonic()
    for number in itertools.count(1):
        await asyncio.sleep(max(0.0, began + number * period_s - time.monotonic()))
        async with load.paused():
            await asyncio.sleep(_PAUSE_S + every_s)


async def _sample(
    load: MixedLoad, front: psutil.Process, report: Report, every_s: float, out: Path
) -> None:
    """Take samples, and write each at once: they survive however the run ends."""
    await load.is_warm.wait()
    processes = {"front": front, "engine": front.children()[0]}
    report.samples = {name: [] for name in processes}
    began = time.monotonic()
    moments = track(range(int(report.seconds / every_s)), "soak", console=Console(stderr=True))
    with (out / "samples.jsonl").open("w", buffering=1) as file:
        async with load.http() as http:
            for number in moments:
                await asyncio.sleep(max(0.0, began + (number + 1) * every_s - time.monotonic()))
                metrics = (await http.get("/metrics")).raise_for_status().text
                for name, process in processes.items():
                    with process.oneshot():
                        sample = Sample(
                            time_s=time.monotonic() - began,
                            rss_mb=process.memory_info().rss / 2**20,
                            num_blocks=_value(metrics, _BLOCKS[name]),
                            num_threads=process.num_threads(),
                            num_files=process.num_fds(),
                            num_tasks=_value(metrics, _TASKS[name]),
                        )
                    report.samples[name].append(sample)
                    file.write(json.dumps({"process": name, **asdict(sample)}) + "\n")


def _value(metrics: str, series: str) -> int:
    (line,) = (line for line in metrics.splitlines() if line.startswith(series))
    return int(float(line.removeprefix(series)))


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between samples")
    parser.add_argument("--pace", type=float, default=0.5, help="seconds between a user's calls")
    parser.add_argument("--model", default="", help="REFINE_MODEL; default tiny random weights")
    parser.add_argument("--serve", type=shlex.split, help="command that starts the service")
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    parser.add_argument("--results", type=Path, default=RESULTS / "soak.csv")
    parser.add_argument("--judge", action="store_true", help="judge the samples in OUT again")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse(words)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for signum in _SIGNALS:  # until the loop handles them, the service must end, too
        signal.signal(signum, signal.default_int_handler)
    if arguments.judge:
        report = Report(arguments.seconds)
        report.samples = read_samples((arguments.out / "samples.jsonl").open())
    else:
        report = _run(arguments)
    try:
        publish(report, arguments.out, None if arguments.judge else arguments.results)
    except ValueError as error:
        sys.exit(f"{error}: {'; '.join(report.failures)}")
    sys.exit(bool(report.all_failures()))


def _run(arguments: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"REFINE_MODEL": arguments.model} if arguments.model else {}
        if not (arguments.model or arguments.serve):
            from benchmarks.core import random_checkpoint  # noqa: PLC0415 - torch, only here

            random_checkpoint.write(random_checkpoint.SIZES["smallest"], Path(folder))
            # Where others use the cores, two threads would wait for each other in every operation.
            settings = {"REFINE_MODEL": folder, "REFINE_NUM_THREADS": "1"}
        return asyncio.run(
            soak(
                arguments.serve or SERVE,
                settings,
                seconds=arguments.seconds,
                every_s=arguments.every,
                pace_s=arguments.pace,
                out=arguments.out,
            )
        )


if __name__ == "__main__":
    main()
