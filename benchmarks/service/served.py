"""The service in its own processes, as people start it, while it is measured."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import psutil

_ROOT = Path(__file__).parents[2]
SERVE = (sys.executable, "-c", "from service.cli.main import main; main()", "serve")
"""The command without an installation."""

_POLL_S = 0.05
_READY_S = 120.0
_STOP_S = 60.0


@dataclass(frozen=True)
class Served:
    """A service that is ready: its address, its front's process, and how long its start took."""

    url: str
    front: psutil.Process
    ready_s: float


def module_environment() -> dict[str, str]:
    """Return the environment in which a process finds our modules from any current folder."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


@contextmanager
def served(
    settings: Mapping[str, str] | None = None,
    *,
    command: Sequence[str] = SERVE,
    log: Path = Path(os.devnull),
    ready_within_s: float = _READY_S,
    deadline_s: float = 120.0,
) -> Iterator[Served]:
    """Serve with `REFINE_*` settings on a free port, until all engines serve.

    Raises RuntimeError if they do not in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    ours = {"REFINE_PORT": str(port), "REFINE_DEADLINE_S": str(deadline_s), **(settings or {})}
    started = time.monotonic()
    with log.open("w") as file:
        front = subprocess.Popen(command, env={**module_environment(), **ours}, stderr=file)
    try:
        while not _is_ready(url):
            if front.poll() is not None or time.monotonic() - started > ready_within_s:
                raise RuntimeError(f"the service was not ready in {ready_within_s:g} s; log: {log}")
            time.sleep(_POLL_S)
        yield Served(url, psutil.Process(front.pid), time.monotonic() - started)
    finally:
        front.terminate()
        try:
            front.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            front.kill()
            front.wait()


def _is_ready(url: str) -> bool:
    try:
        answer = httpx.get(url + "/health/ready", timeout=20)
    except httpx.TransportError:
        return False
    engines = answer.json().get("engines", [])
    return answer.status_code == HTTPStatus.OK and all(
        engine["state"] == "serving" for engine in engines
    )


def model_of(url: str, key: str | None = None) -> dict[str, Any]:
    """Return the loaded checkpoint's id, its device and its dtype."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    models = httpx.get(url + "/v1/models", headers=headers).raise_for_status().json()["models"]
    loaded = next(model for model in models if model["loaded"])
    return {name: loaded[name] for name in ("id", "device", "dtype")}


def run_json(*arguments: str) -> dict[str, Any]:
    """Run a module in its own process and return the JSON of its last line."""
    ended = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=module_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result
