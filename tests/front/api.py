"""What the tests of the wire share: a server with a fake engine, and a client with the key."""

from __future__ import annotations

import base64
import io
import re
from typing import Any, Self

import httpx
from PIL import Image

from tests.fakes import FakeEngineClient
from tests.servers import KEY

ROUTES = ["/lcm-instant-refine", "/generations-lcm"]
PATHS = [prefix + route for prefix in ("", "/api/rest/v1") for route in ROUTES]
MAX_BODY_BYTES = 2_000_000
STAGES = ["decode", "queue", "text", "encode", "denoise", "vae", "codec"]


def data_url(image: Image.Image, file_format: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, file_format)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


PICTURE = data_url(Image.new("RGB", (64, 48), (200, 30, 60)))


class Api:
    """A server, its engine, and a client that holds the key."""

    def __init__(self, url: str, engine: FakeEngineClient, key: str = KEY) -> None:
        self.url = url
        self.engine = engine
        self.http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20
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


def picture_of(response: httpx.Response) -> bytes:
    (url,) = response.json()["lcmGenerationJob"]["imageDataUrl"]
    return base64.b64decode(url.partition(",")[2])
