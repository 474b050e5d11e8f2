"""A leak to be found, of two megabytes a second: FAKE_LEAK=front, engine or `front engine`."""

from __future__ import annotations

import os
import threading
import time

_KEPT: list[bytes] = []


def leak(process: str) -> None:
    """Leak from now on, if this process is named."""
    if process in os.environ.get("FAKE_LEAK", "").split():
        threading.Thread(target=_leak, daemon=True).start()


def _leak() -> None:
    while True:
        _KEPT.append(os.urandom(200_000))
        time.sleep(0.1)
