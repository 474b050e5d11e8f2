"""A request's time through the service, as a user would measure it.

The service is another process, started by its own command: nothing here knows how it works.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

COMMAND = Path(sys.executable).with_name("instant-refine")
START_S = 120.0


class NotServed(Exception):
    """The service did not start, or did not answer."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a checkpoint's folder on the CPU; yield the address. Raises NotServed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # With settings of nobody's: what is measured is the service as it comes.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REFINE_")}
    process = subprocess.Popen(
        [COMMAND, "serve", "--port", str(port), "--model", folder, "--device", "cpu"],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def median_seconds(url: str, seconds: float) -> float:
    """Return the p50 of one user who asks again when answered, 512 x 512 in four steps.

    The first requests warm the engine up, and are not counted. Raises NotServed if there is
    any answer but a picture.
    """
    _ask(url, min(5.0, seconds))
    told = _ask(url, seconds)
    if told["answers"] != f"{told['requests']} x 200":
        raise NotServed(f"the service answered {told['answers']}")
    return float(str(told["p50_ms"])) / 1000


def _ask(url: str, seconds: float) -> dict[str, object]:
    words = [str(COMMAND), "bench", url, "--users", "1", "--seconds", str(seconds)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    if not ended.stdout:
        raise NotServed(ended.stderr)
    told: dict[str, object] = json.loads(ended.stdout)
    return told


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise NotServed(f"the service ended with {process.returncode}")
        with suppress(httpx.TransportError):
            if httpx.get(url + "/health/ready").is_success:
                return
        time.sleep(0.2)
    raise NotServed(f"the service was not ready within {START_S:.0f} s")
