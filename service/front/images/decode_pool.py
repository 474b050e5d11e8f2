"""Where pictures are read: on threads of this process, or in processes with bounds of their own."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Final, Literal, TypeVar

import psutil
import structlog

from service.errors import ImageInvalid
from service.front.access_control.fair_queue import FairSemaphore, Turn
from service.front.images.codec import LargePicture, only_small

T = TypeVar("T")
Isolation = Literal["thread", "process"]

NUM_DECODERS: Final = 2
EXTRA_BYTES: Final = 1 << 30
CPU_S: Final = 5
WALL_S: Final = 15.0
"""How long a picture may take where its process has a third of a processor, or waits for nothing.

Half of the deadline of a refine: whoever sent it is told in time, and whoever waits is served.
"""

_TASKS_PER_WORKER: Final = 1000

_log = structlog.get_logger(__name__)


class Decoders:
    """At most two works at once, one of them large; callers have their turns in fairness.

    In processes, one that ends in the middle costs its own work: each process has an executor to
    itself, so that its end breaks no other's. A thread cannot be ended, and has no limit of time.
    What processes are given must be picklable. Used from one event loop.
    """

    def __init__(self, isolation: Isolation, *, wall_s: float = WALL_S) -> None:
        self._new = _new_worker if isolation == "process" else _new_thread
        self._wall_s = wall_s
        self._turns = FairSemaphore(NUM_DECODERS)
        self._idle: list[Executor] = [self._new() for _ in range(NUM_DECODERS)]
        self._all = set(self._idle)

    async def run(self, work: Callable[[], T], caller: str = "") -> T:
        """Run `work` to its end, which no cancellation hastens once it began. Raises what it does.

        One that meets a large picture is run again from its beginning when its turn comes.
        Raises ImageInvalid when its process ends, for it used up its time or its memory.
        """
        try:
            return await self._in_turn(partial(_small, work), caller, is_large=False)
        except LargePicture:
            return await self._in_turn(work, caller, is_large=True)

    async def _in_turn(self, work: Callable[[], T], caller: str, *, is_large: bool) -> T:
        turn = await self._turns.take(caller, is_large=is_large)
        return await asyncio.shield(asyncio.ensure_future(self._run_on_turn(turn, work)))

    async def _run_on_turn(self, turn: Turn, work: Callable[[], T]) -> T:
        started = time.monotonic()
        executor = self._idle.pop()  # there is one for each turn
        try:
            return await self._run_on(executor, work)
        except BrokenProcessPool:
            _log.warning("a decoder ended in the middle of a picture")
            self._all.discard(executor)
            executor = self._new()
            self._all.add(executor)
            raise ImageInvalid("a picture takes too long or too much memory to decode") from None
        finally:
            self._idle.append(executor)
            self._turns.give_back(turn, time.monotonic() - started)

    async def _run_on(self, executor: Executor, work: Callable[[], T]) -> T:
        is_thread = isinstance(executor, ThreadPoolExecutor)
        bounded = work if is_thread else partial(_bounded, work, self._wall_s)
        return await asyncio.get_running_loop().run_in_executor(executor, bounded)

    def close(self) -> None:
        for executor in self._all:
            executor.shutdown(wait=False, cancel_futures=True)


def _small(work: Callable[[], T]) -> T:
    with only_small():
        return work()


def _bounded(work: Callable[[], T], wall_s: float) -> T:
    """Run a work that the kernel ends when it has used up a processor's time, or the clock's."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + CPU_S
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))
    # Nothing in this process handles the signal, so that it ends whatever hangs, codecs too.
    signal.setitimer(signal.ITIMER_REAL, wall_s)
    try:
        return work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _new_thread() -> Executor:
    return ThreadPoolExecutor(1, thread_name_prefix="decode")


def _new_worker() -> Executor:
    return ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_bound_memory,
        max_tasks_per_child=_TASKS_PER_WORKER,
    )


def _bound_memory() -> None:
    """Let this process have a gibibyte of addresses more than it has with its libraries loaded."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    most = psutil.Process().memory_info().vms + EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
