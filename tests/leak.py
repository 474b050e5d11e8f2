"""A leak to be found: FAKE_LEAK=front or engine, two megabytes a second that are never let go."""

from __future__ import annotations

import os
import threading
import time

_KEPT: list[bytes] = []


def leak(process: str) -> None:
    """Leak from now on, if this process is the one named."""
    if os.environ.get("FAKE_LEAK") == process:
        threading.Thread(target=_leak, daemon=True).start()


def _leak() -> None:
    while True:
        _KEPT.append(os.urandom(200_000))
        time.sleep(0.1)
