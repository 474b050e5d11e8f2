"""Leaks to be found: FAKE_LEAK="front-memory engine-files ..." names a process and what it leaks.

Memory, and objects of 100 bytes, leak at FAKE_LEAK_MB_PER_HOUR, two megabytes a second unless it is
set; of threads, files and tasks there is one more every second. An engine's tasks are jobs that it
never forgets.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from service.engine_client.local import LocalEngineClient

_KEPT: list[Any] = []


def leak(process: str, **kinds: Callable[[], object]) -> None:
    """Leak from now on what is named of this process; `kinds` are more ways than there are here."""
    rate_mb = float(os.environ.get("FAKE_LEAK_MB_PER_HOUR", "7200"))
    num_bytes = int(rate_mb * 2**20 / 36000)
    _every(0.1, lambda: os.urandom(num_bytes), named=f"{process}-memory")
    _every(0.1, lambda: [bytes(67) for _ in range(num_bytes // 100)], named=f"{process}-objects")
    kinds |= {"threads": _thread, "files": lambda: os.open("/dev/null", os.O_RDONLY)}
    for kind, grow in kinds.items():
        _every(1.0, grow, named=f"{process}-{kind}")


def _every(period_s: float, grow: Callable[[], object], named: str) -> None:
    def repeat() -> None:
        while True:
            _KEPT.append(grow())
            time.sleep(period_s)

    if named in os.environ.get("FAKE_LEAK", "").split():
        threading.Thread(target=repeat, daemon=True).start()


def _thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


class LeakyClient(LocalEngineClient):
    """Starts with the event loop, in which tasks can leak."""

    async def start(self) -> None:
        await super().start()
        loop = asyncio.get_running_loop()

        def task() -> None:
            loop.call_soon_threadsafe(lambda: _KEPT.append(loop.create_task(asyncio.sleep(1e6))))

        leak("front", tasks=task)
