"""Where pictures are read: on threads of this process, or in processes with bounds of their own."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Final, Literal, TypeVar

import psutil
import structlog

from service.errors import ImageInvalid

T = TypeVar("T")
Isolation = Literal["thread", "process"]

NUM_DECODERS: Final = 2
EXTRA_BYTES: Final = 1 << 30
CPU_S: Final = 5
_TASKS_PER_WORKER: Final = 1000

_log = structlog.get_logger(__name__)


class Decoders:
    """At most two works at once. In processes, one that ends in the middle costs its own work.

    Each process has an executor to itself, so that its end breaks no other's. What it is given
    must be picklable. Used from one event loop.
    """

    def __init__(self, isolation: Isolation) -> None:
        self._new = _new_worker if isolation == "process" else _new_thread
        self._idle: asyncio.LifoQueue[Executor] = asyncio.LifoQueue()
        for _ in range(NUM_DECODERS):
            self._idle.put_nowait(self._new())
        self._all: set[Executor] = set()

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` to its end, which no cancellation hastens. Raises what it raises.

        Raises ImageInvalid when its process ends, for it used up its time or its memory.
        """
        executor = await self._idle.get()
        self._all.add(executor)
        task = asyncio.ensure_future(self._run_on(executor, work))
        return await asyncio.shield(task)

    async def _run_on(self, executor: Executor, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            bounded = work if isinstance(executor, ThreadPoolExecutor) else partial(_bounded, work)
            return await loop.run_in_executor(executor, bounded)
        except BrokenProcessPool:
            _log.warning("a decoder ended in the middle of a picture")
            self._all.discard(executor)
            executor = self._new()
            raise ImageInvalid("a picture takes too long or too much memory to decode") from None
        finally:
            self._idle.put_nowait(executor)

    def close(self) -> None:
        while not self._idle.empty():
            self._all.add(self._idle.get_nowait())
        for executor in self._all:
            executor.shutdown(wait=False, cancel_futures=True)


def _bounded(work: Callable[[], T]) -> T:
    """Run a work that the kernel ends when it has used five seconds of a processor."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + CPU_S
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))
    return work()


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
    import service.front.images  # noqa: F401, PLC0415 - so that it counts as loaded

    most = psutil.Process().memory_info().vms + EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
