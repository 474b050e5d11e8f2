"""The service as a reader starts it, on the bundled checkpoint, and a picture asked of it."""

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
_PICTURE_S = 120.0


@contextmanager
def running_service() -> Iterator[str]:
    """Serve on a free port; yield the address when a picture can be made."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen([_COMMAND, "serve", "--model", "pocket", "--port", str(port)]) as process:
        try:
            _wait_until_ready(address)
            yield address
        finally:
            process.terminate()


def ask(address: str, route: str, picture: Image.Image, **fields: Any) -> Image.Image:
    """Ask a route for a picture of a picture. Raises httpx.HTTPStatusError where it refuses."""
    body = {"imageDataUrl": to_data_url(picture), "outputFormat": "png", "seed": 7, **fields}
    answer = httpx.post(f"{address}/{route}", json=body, timeout=_PICTURE_S).raise_for_status()
    (url,) = answer.json()["lcmGenerationJob"]["imageDataUrl"]
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return image.copy()


def to_data_url(picture: Image.Image) -> str:
    """Return a picture as a data URL, without loss."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _wait_until_ready(address: str) -> None:
    ends = time.monotonic() + _START_S
    while True:
        try:
            httpx.get(f"{address}/health/ready").raise_for_status()
        except (httpx.TransportError, httpx.HTTPStatusError):
            if time.monotonic() > ends:
                raise
            time.sleep(0.3)
        else:
            return
