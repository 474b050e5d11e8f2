"""The watch on the event loop: its tasks, how late it comes to a timer, where it stands still."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback

import structlog

from service.front.telemetry.metrics import Metrics

PERIOD_S = 0.05
BLOCKED_S = 1.0

_log = structlog.get_logger(__name__)


class LoopWatchdog:
    """Measures the loop that starts it; a thread logs the stack of one that stands still."""

    def __init__(self, metrics: Metrics, blocked_s: float = BLOCKED_S) -> None:
        self._metrics = metrics
        self._blocked_s = blocked_s
        self.last_stack: list[str] = []
        self._ticked_at = 0.0
        self._ended = threading.Event()

    def start(self) -> None:
        """Watch the running loop from now on."""
        loop = asyncio.get_running_loop()
        self._metrics.loop_tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        self._ticked_at = time.monotonic()
        self._thread_id = threading.get_ident()
        self._ticking = asyncio.create_task(self._tick())
        threading.Thread(target=self._look, name="loop-watchdog", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()
        self._ticking.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            now = time.monotonic()
            self._metrics.loop_lag_seconds.observe(max(0.0, now - self._ticked_at - PERIOD_S))
            self._ticked_at = now

    def _look(self) -> None:
        told_at = 0.0
        while not self._ended.wait(self._blocked_s / 4):
            ticked_at = self._ticked_at
            blocked_s = time.monotonic() - ticked_at
            if blocked_s > self._blocked_s and told_at != ticked_at:
                told_at = ticked_at  # once for each time
                self._metrics.loop_blocked.inc()
                frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - there is no other
                stack = self.last_stack = traceback.format_stack(frame)
                _log.error("the event loop stands still", blocked_s=blocked_s, where="".join(stack))
