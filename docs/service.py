"""A service on the bundled checkpoint, as a reader starts it, and a client of its routes."""

from __future__ import annotations

import base64
import io
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

_COMMAND = Path(sys.executable).with_name("instant-refine")
_START_S = 120.0
_REFINE_S = 120.0


@contextmanager
def running_service() -> Iterator[str]:
    """Serve on a free port; yield the address once the service is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen([_COMMAND, "serve", "--model", "pocket", "--port", str(port)]) as process:
        try:
            _wait_until_ready(address)
            yield address
        finally:
            process.terminate()


def refine(address: str, route: str, image: Image.Image, **fields: Any) -> Image.Image:
    """Refine an image on a route. Raises httpx.HTTPStatusError for a refusal."""
    body = {"imageDataUrl": to_data_url(image), "outputFormat": "png", "seed": 7, **fields}
    response = httpx.post(f"{address}/{route}", json=body, timeout=_REFINE_S).raise_for_status()
    (url,) = response.json()["lcmGenerationJob"]["imageDataUrl"]
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as refined:
        return refined.copy()


def to_data_url(image: Image.Image) -> str:
    """Return an image as a data URL of a PNG."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            httpx.get(f"{address}/health/ready").raise_for_status()
        except (httpx.TransportError, httpx.HTTPStatusError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
        else:
            return
