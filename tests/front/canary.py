"""A server in a process of its own that is sent secrets by every way; its log is what it prints.

python -m tests.front.canary json
"""

from __future__ import annotations

import io
import logging
import random
import sys
from typing import cast

import httpx
from PIL import Image

from service.errors import GenerationFailed, QueueFull
from service.logs import configure_logging
from service.settings import LogFormat
from tests.fakes import FakeEngineClient
from tests.front.api import ROUTES, Api, data_url
from tests.servers import running_server

CANARY = "CaNaRy"
KEY = f"{CANARY}-key"
PICTURE = data_url(Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3)))
ERRORS = [
    QueueFull("full", retry_after_s=1),
    GenerationFailed("this picture could not be made"),
    ZeroDivisionError("a bug"),
]


def main(log_format: LogFormat) -> None:
    configure_logging(log_format)
    logging.root.setLevel(logging.DEBUG)
    engine = FakeEngineClient()
    with running_server(engine, api_keys=KEY) as url, Api(url, engine, KEY) as api:
        send_canaries(api)
        for error in ERRORS:
            engine.refusals.append(error)  # type: ignore[arg-type]
            assert api.refine(prompt=CANARY, imageDataUrl=PICTURE).status_code >= 500


def send_canaries(api: Api) -> None:
    """Every way that a secret could take into a log."""
    assert api.refine(prompt=CANARY, imageDataUrl=PICTURE).status_code == 200
    for fields in (
        {"prompt": 5, CANARY: CANARY}, {"prompt": f"{CANARY}\0"}, {"style": CANARY},
        {"imageDataUrl": f"data:image/png;base64,{CANARY}"}, {"requestTimestamp": CANARY * 20},
        {"imageDataUrl": PICTURE[:-200]}, {"steps": CANARY},
    ):  # fmt: skip
        answer = api.refine(**fields)
        assert answer.status_code == 400
        if CANARY not in fields:
            assert CANARY not in answer.text
    api.http.get(f"/{CANARY}?api_key={KEY}")
    api.http.request(CANARY, "/v1/models")
    json_type = {"content-type": "application/json"}
    api.http.post(ROUTES[0], content=b'{"prompt": "' + CANARY.encode(), headers=json_type)
    httpx.get(api.url + "/v1/models", headers={"authorization": f"Bearer {CANARY}-wrong"})
    httpx.get(api.url + "/v1/models", headers={"x-request-id": f"{CANARY} {CANARY}"})
    with io.BytesIO(CANARY.encode()) as file:
        api.http.post(ROUTES[0], files={"file": file})


if __name__ == "__main__":
    main(cast("LogFormat", sys.argv[1]))
