"""The service as people start it, in processes of its own, while it is measured."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import psutil

_ROOT = Path(__file__).parents[2]
_SERVE = "from service.cli import main; main()"  # the command itself, where none is installed
_LOOK_S = 0.05
_READY_S = 120.0


@dataclass(frozen=True)
class Served:
    """A service that is ready: its address, its front's process, and how long its start took."""

    url: str
    front: psutil.Process
    ready_s: float


@contextmanager
def served(
    settings: Mapping[str, str] | None = None, *, ready_within_s: float = _READY_S
) -> Iterator[Served]:
    """Serve with `REFINE_*` settings of an environment, on a free port, until all engines serve."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", _SERVE, "serve", "--port", str(port)]
    # From a checkout that is not installed, too: an engine looks into no current folder.
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    ours = {"PYTHONPATH": path, "REFINE_DEADLINE_S": "120"}
    environment = {**os.environ, **ours, **(settings or {})}
    started = time.monotonic()
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_ready(url, process, ready_within_s)
            yield Served(url, psutil.Process(process.pid), time.monotonic() - started)
        finally:
            process.terminate()
            process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], within_s: float) -> None:
    """Return when every engine serves. Raises SystemExit where none will."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends and process.poll() is None:
        time.sleep(_LOOK_S)
        try:
            answer = httpx.get(url + "/health/ready")
        except httpx.TransportError:
            continue
        engines = answer.json().get("engines", [])
        serve = all(engine["state"] == "serving" for engine in engines)
        if answer.status_code == HTTPStatus.OK and serve:
            return
    raise SystemExit("the service was not ready in time")


def model_of(url: str, key: str | None = None) -> dict[str, Any]:
    """Return what a service has loaded: the checkpoint's id, its device and its dtype."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    models = httpx.get(url + "/v1/models", headers=headers).raise_for_status().json()["models"]
    loaded = next(model for model in models if model["loaded"])
    return {name: loaded[name] for name in ("id", "device", "dtype")}


def run_json(*arguments: str) -> dict[str, Any]:
    """Run a module of ours in a process of its own and read the JSON that it ends in."""
    ended = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result
