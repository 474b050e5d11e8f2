"""Serve a mix for a long time, and fail if memory, threads, files or tasks of a process grow.

    python -m benchmarks.soak --seconds 1800
    python -m benchmarks.soak --judge           # again, from the samples of a run, a killed one too

Ends in a table, a plot, a line of JSON, and the exit code 1 where something grew or an answer was
wrong. A first signal ends a run early: what was seen by then is judged, and it has failed.
`--model pocket` serves the bundled checkpoint instead of a tiny random one, `--model fake` an
engine that sleeps, in which FAKE_LEAK plants a leak (see tests/leak.py).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.progress import track

from benchmarks.soak.load import Mix
from benchmarks.soak.report import Report, Sample, bin_s, read_samples, tell

RESULTS = Path(__file__).parents[1] / "results" / "soak.csv"
SERVE = (str(Path(sys.executable).with_name("instant-refine")), "serve")
FAKE = (sys.executable, "-m", "tests.fake_serve")
START_S = 180.0
_REST_S = 7.0  # an engine that is idle gives back memory after 5
_LEAST_PERIOD_S = 50.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TASKS = {"front": "refine_loop_tasks ", "engine": 'refine_engine_jobs{engine="0"} '}
_BLOCKS = {
    "front": "refine_python_blocks ", "engine": 'refine_engine_python_blocks{engine="0"} ',
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
    report = Report(seconds)
    with serving(command, environment, out / "soak.log") as (url, front):
        mix = Mix(url, pace_s)
        load = asyncio.create_task(mix.run())
        watch = asyncio.create_task(_watch(mix, front, report, every_s, out))
        rests = asyncio.create_task(_rest(mix, bin_s(seconds), every_s))
        for signum in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(signum, watch.cancel)
        await asyncio.wait({load, watch}, return_when=asyncio.FIRST_COMPLETED)
        report.failures += [f"the load broke: {load.exception()!r}"] if load.done() else []
        report.failures += await _ended(watch, report)
        for task in (load, rests):
            task.cancel()
        await asyncio.wait({load, rests})
    report.answers = {" ".join(key): count for key, count in sorted(mix.counts.items())}
    report.failures += mix.failures(report.seen_s)
    return report


async def _rest(mix: Mix, period_s: float, every_s: float) -> None:
    """Let the callers rest once in each bin of the slopes, for as long as a sample then needs.

    What a process has then is what it keeps: beside upscales it swings by tens of megabytes.
    """
    if period_s < _LEAST_PERIOD_S:
        return
    await mix.is_warm.wait()
    began = time.monotonic()
    for number in itertools.count(1):
        await asyncio.sleep(max(0.0, began + number * period_s - time.monotonic()))
        async with mix.resting():
            await asyncio.sleep(_REST_S + every_s)


async def _ended(watch: asyncio.Task[None], report: Report) -> list[str]:
    """End the watch where it has not; tell how it ended, if before its time."""
    watch.cancel()
    await asyncio.wait({watch})
    if watch.cancelled():
        return [f"cut at {report.seen_s:.0f} s of {report.seconds:.0f}"]
    fault = watch.exception()
    return [] if fault is None else [f"a process or its metrics ended: {fault!r}"]


async def _watch(
    mix: Mix, front: psutil.Process, report: Report, every_s: float, out: Path
) -> None:
    """Take samples and write them down at once, so that they outlive whatever ends the run."""
    await mix.is_warm.wait()
    processes = {"front": front, "engine": front.children()[0]}
    report.samples = {name: [] for name in processes}
    began = time.monotonic()
    turns = track(range(int(report.seconds / every_s)), "soak", console=Console(stderr=True))
    with (out / "samples.jsonl").open("w", buffering=1) as file:
        async with mix.http() as http:
            for number in turns:
                await asyncio.sleep(max(0.0, began + (number + 1) * every_s - time.monotonic()))
                metrics = (await http.get("/metrics")).raise_for_status().text
                for name, process in processes.items():
                    told = _value(metrics, _BLOCKS[name]), _value(metrics, _TASKS[name])
                    sample = _look(process, time.monotonic() - began, *told)
                    report.samples[name].append(sample)
                    file.write(json.dumps({"process": name, **asdict(sample)}) + "\n")


def _value(metrics: str, series: str) -> int:
    (line,) = (line for line in metrics.splitlines() if line.startswith(series))
    return int(float(line.removeprefix(series)))


def _look(process: psutil.Process, time_s: float, num_blocks: int, num_tasks: int) -> Sample:
    with process.oneshot():
        rss_mb = process.memory_info().rss / 2**20
        return Sample(
            time_s, rss_mb, num_blocks, process.num_threads(), process.num_fds(), num_tasks
        )


def main() -> None:
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for signum in _SIGNALS:  # until the loop has handlers: the service must end, too
        signal.signal(signum, signal.default_int_handler)
    if arguments.judge:
        report = Report(arguments.seconds)
        report.samples = read_samples((arguments.out / "samples.jsonl").open())
    else:
        report = _run(arguments)
    try:
        tell(report, arguments.out, None if arguments.judge else arguments.results)
    except ValueError as error:
        sys.exit(f"{error}: {'; '.join(report.failures)}")
    sys.exit(bool(report.all_failures()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between samples")
    parser.add_argument("--pace", type=float, default=0.5, help="seconds between a painter's calls")
    parser.add_argument("--model", default="tiny", help="tiny, fake, or what REFINE_MODEL takes")
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="where rows are kept")
    parser.add_argument("--judge", action="store_true", help="judge the samples in OUT again")
    return parser.parse_args()


def _run(arguments: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(
            soak(
                FAKE if arguments.model == "fake" else SERVE,
                _environment(arguments.model, Path(folder)),
                seconds=arguments.seconds,
                every_s=arguments.every,
                pace_s=arguments.pace,
                out=arguments.out,
            )
        )


def _environment(model: str, folder: Path) -> dict[str, str]:
    if model == "fake":
        return {"PYTHONPATH": str(Path(__file__).parents[2])}  # an engine sees no current folder
    if model != "tiny":
        return {"REFINE_MODEL": model}
    from tests.checkpoints import write_checkpoint  # noqa: PLC0415 - needs torch, which others do not

    # On one thread: where others use the cores, two would wait for each other at each operation.
    return {"REFINE_MODEL": str(write_checkpoint(folder / "tiny")), "REFINE_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
