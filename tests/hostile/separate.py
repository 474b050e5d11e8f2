"""A server with a fake engine in a process of its own, whose memory and time can be measured.

python -m tests.hostile.separate      prints its address; ends when its standard input does
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from models.malloc import bound_malloc
from service.front.server import MAPPED_BYTES
from service.logs import configure_logging
from service.protocol.jobs import Finished
from tests.support.fakes import FakeEngineClient
from tests.support.servers import running_server


class Forgetful(FakeEngineClient):
    """Keeps nothing of what it was asked, so that memory is the server's own."""

    async def generate(self, *arguments: Any, **options: Any) -> Finished:
        try:
            return await super().generate(*arguments, **options)
        finally:
            self.asked.clear()
            self.masks.clear()


class Separate:
    """Such a server, seen from outside."""

    def __init__(self, url: str, process: psutil.Process) -> None:
        self.url = url
        self._process = process

    def cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def peak_mb(self) -> float:
        """The most memory that was ever resident."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    @contextmanager
    def peak_of_all_mb(self) -> Iterator[Callable[[], float]]:
        """Sum the memory of the server's process and its children every hundredth of a second."""
        peak, ended = [0.0], threading.Event()

        def look() -> None:
            while not ended.wait(0.01):
                peak[0] = max(peak[0], self._resident_mb())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield lambda: peak[0]
        finally:
            ended.set()
            thread.join()

    def _resident_mb(self) -> float:
        total = 0.0
        for process in (self._process, *self._process.children()):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss / 2**20
        return total

    def num_files(self) -> int:
        return int(self._process.num_fds())


@contextmanager
def separate(**settings: str) -> Iterator[Separate]:
    environment = {f"REFINE_{name.upper()}": value for name, value in settings.items()}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.separate"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        assert process.stdout is not None
        yield Separate(process.stdout.readline().strip(), psutil.Process(process.pid))
        assert process.poll() is None, "the server died"
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)


if __name__ == "__main__":
    bound_malloc(MAPPED_BYTES)
    configure_logging("json")
    logging.disable(logging.CRITICAL)
    with running_server(Forgetful()) as address:
        print(address, flush=True)
        sys.stdin.read()
