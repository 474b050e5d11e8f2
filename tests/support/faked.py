"""The service around an engine that sleeps: a front and an engine process, for load and faults."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from PIL import Image

from tests.support.servers import START_S, wait_until

ROOT = Path(__file__).parents[2]
ROUTE = "/lcm-instant-refine"


def picture_url() -> str:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((512, 512)).convert("RGB").save(file, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


PICTURE = picture_url()


def body(**fields: Any) -> dict[str, Any]:
    return {"imageDataUrl": PICTURE, "prompt": "a boat", "steps": 4, "seed": 3, **fields}


class Faked:
    """`python -m tests.support.fake_serve` on a free port, its log in JSON."""

    def __init__(self, patience: dict[str, float], environment: dict[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fake_serve"],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "REFINE_PORT": str(self.port),
                "REFINE_LOG_FORMAT": "json",
                "FAKE_PATIENCE": json.dumps(patience),
                **environment,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def readiness(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = httpx.get(self.url + "/health/ready", timeout=20).json()
        except httpx.TransportError:
            return {"ready": False, "state": "none", "pending": 0}
        return content

    def is_ready(self) -> bool:
        return bool(self.readiness()["ready"])

    def refine(self, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        return httpx.post(self.url + ROUTE, json=body(**fields), headers=headers, timeout=60)

    def engine(self) -> psutil.Process:
        """The engine's process; raises IndexError while there is none."""
        return psutil.Process(self.process.pid).children()[0]

    def ends(self) -> list[str]:
        """Why engines have ended, as the log tells."""
        lines = [json.loads(line) for line in self.log if line.startswith("{")]
        return [line["reason"] for line in lines if line["event"] == "the engine ended"]

    def close(self) -> int:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return self.process.returncode


@contextmanager
def faked(*, patience: dict[str, float] | None = None, **environment: str) -> Iterator[Faked]:
    """Serve with an engine that sleeps until it is ready; end it in any case."""
    service = Faked(patience or {}, environment)
    try:
        wait_until(service.is_ready, START_S)
        yield service
    finally:
        service.close()
