"""What the tests of the wire share: a client of a server, with the key."""

from __future__ import annotations

import base64
import io
import re
from typing import Any, Self

import httpx
from PIL import Image

from tests.support.servers import KEY

ROUTES = ["/lcm-instant-refine", "/generations-lcm"]
PATHS = [prefix + route for prefix in ("", "/api/rest/v1") for route in ROUTES]
TIMEOUT_S = 240
"""Longer than any deadline, so that a late answer is told as what it is."""

STAGES = ["decode", "queue", "text", "encode", "denoise", "vae", "codec"]


def data_url(image: Image.Image, file_format: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, file_format)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


PICTURE = data_url(Image.new("RGB", (64, 48), (200, 30, 60)))


class Api:
    """A server, and a client that holds the key."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self.url = url
        self.http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def refine(self, route: str = ROUTES[0], /, **fields: Any) -> httpx.Response:
        return self.http.post(route, json={"imageDataUrl": PICTURE, "prompt": "a boat", **fields})

    def refused(self, response: httpx.Response, status: int, code: str, path: str = "$") -> str:
        """Hold a refusal against the contract; return its sentence."""
        assert response.status_code == status
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-request-id"]
        content = response.json()
        assert content.keys() == {"error", "path", "code"}
        assert (content["code"], content["path"]) == (code, path)
        assert len(response.content) < 2000
        sentence: str = content["error"]
        assert not re.search(r"0x[0-9a-f]{6}|/usr/|site-packages|Traceback", sentence)
        return sentence


def size_of(picture: bytes) -> tuple[int, int]:
    """Width and height of a file."""
    with Image.open(io.BytesIO(picture)) as image:
        return image.size


def picture_of(response: httpx.Response) -> bytes:
    (url,) = response.json()["lcmGenerationJob"]["imageDataUrl"]
    return base64.b64decode(url.partition(",")[2])
