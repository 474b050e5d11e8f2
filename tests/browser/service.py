"""The service on the bundled checkpoint, as a user starts it; it can be stopped and restarted."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.servers import START_S, wait_until

_COMMAND = Path(sys.executable).with_name("instant-refine")


class Service:
    """An `instant-refine serve` process, always on the same port."""

    def __init__(self, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._log = log
        self.address = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [_COMMAND, "serve", "--port", str(self._port), "--model", "pocket"],
                env={**os.environ, "OMP_NUM_THREADS": "2", "REFINE_LOG_FORMAT": "json"},
                stderr=log,
            )
        wait_until(self._is_ready, START_S)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return httpx.get(f"{self.address}/health/ready").status_code == 200
        except httpx.TransportError:
            return False
