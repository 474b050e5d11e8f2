"""A server in a process of its own that is sent secrets by every way; its log is what it prints.

python -m tests.support.canary json
"""

from __future__ import annotations

import io
import logging
import random
import sys
from base64 import b64decode
from typing import Any, cast

import httpx
import pytest
from PIL import Image
from websockets.exceptions import InvalidStatus

from service.errors import GenerationFailed, QueueFull
from service.logs import configure_logging
from service.settings import LogFormat
from tests.support.api import ROUTES, Api, data_url
from tests.support.fakes import FakeEngineClient
from tests.support.servers import running_server
from tests.support.sockets import WAIT_S, PainterSocket, greeted, opened

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
    with running_server(engine, api_keys=KEY) as url, Api(url, KEY) as api:
        send_canaries(api)
        for error in ERRORS:
            engine.refusals.append(error)  # type: ignore[arg-type]
            assert_silent(api.refine(prompt=CANARY, imageDataUrl=PICTURE), at_least=500)
        send_canaries_by_socket(url, engine)
        assert_silent(api.http.get("/metrics"), at_least=200)


def assert_silent(answer: httpx.Response, *, at_least: int = 400) -> None:
    """Nothing that was sent comes back, in a header or in a body."""
    assert answer.status_code >= at_least
    check_silent(answer.text + str(answer.headers))


def check_silent(told: str) -> None:
    assert not [mark for mark in (CANARY, PICTURE[60:100], PICTURE[-60:-20]) if mark in told], told


def send_canaries(api: Api) -> None:
    """Every way that a secret could take into a log or an answer."""
    assert api.refine(prompt=CANARY, imageDataUrl=PICTURE).status_code == 200
    for fields in (
        {"prompt": 5, CANARY: CANARY}, {"prompt": f"{CANARY}\0"}, {"style": CANARY},
        {"imageDataUrl": f"data:image/png;base64,{CANARY}"}, {"requestTimestamp": CANARY * 20},
        {"imageDataUrl": PICTURE[:-200]}, {"steps": CANARY}, {"modelId": CANARY},
        {"outputFormat": CANARY}, {"prompt": CANARY * 500}, {"prompt": [CANARY]},
    ):  # fmt: skip
        answer = api.refine(**fields)
        if CANARY in fields:  # an unknown field is refused by its name
            assert answer.status_code == 400
        else:
            assert_silent(answer)
    assert_silent(api.http.get(f"/{CANARY}?api_key={KEY}"))
    assert_silent(api.http.request(CANARY, "/v1/models"))
    json_type = {"content-type": "application/json"}
    for body in (
        b'{"prompt": "' + CANARY.encode(),
        CANARY.encode(),
        b'["' + CANARY.encode() + b'"]',
    ):
        assert_silent(api.http.post(ROUTES[0], content=body, headers=json_type))
    for headers in ({"content-type": CANARY}, {"content-encoding": CANARY, **json_type}):
        assert_silent(api.http.post(ROUTES[0], content=b"{}", headers=headers))
    assert_silent(api.http.get("/v1/models", headers={"host": f"{CANARY}?"}))
    wrong = {"authorization": f"Bearer {CANARY}-wrong"}
    assert_silent(httpx.get(api.url + "/v1/models", headers=wrong))
    assert_silent(httpx.get(api.url + "/v1/models", headers={"x-request-id": f"{CANARY} {CANARY}"}))
    with io.BytesIO(CANARY.encode()) as file:
        assert_silent(api.http.post(ROUTES[0], files={"file": file}))


def send_canaries_by_socket(url: str, engine: FakeEngineClient) -> None:
    """The same in messages of a painter: frames, greetings, what is no message, and a close."""
    for hello in ({"key": f"{CANARY}-wrong"}, {"ticket": CANARY}, {CANARY: 1}, {"key": [CANARY]}):
        with opened(url) as socket:
            socket.tell("hello", **hello)
            heard = socket.connection.recv(WAIT_S)
            if CANARY not in hello:
                check_silent(str(heard))
    for message in (CANARY, f'{{"type": "{CANARY}"}}', f'{{"type": "frame", "id": "{CANARY}"}}'):
        with greeted(url, KEY) as socket:
            socket.connection.send(message)
            check_silent(str(socket.hear()))
            socket.connection.send(CANARY.encode())
            check_silent(str(socket.hear()))
            socket.connection.close(4999, CANARY)
    with greeted(url, KEY) as socket:
        send_frames(socket, engine)
    with pytest.raises(InvalidStatus) as refused, opened(url, origin=f"https://{CANARY}.example"):
        pass
    check_silent(str(refused.value.response.body))


def send_frames(socket: PainterSocket, engine: FakeEngineClient) -> None:
    picture = b64decode(PICTURE.partition(",")[2])
    faults: list[dict[str, Any]] = [
        {"file": CANARY.encode() * 9},
        {"file": picture[:-200]},
        {"style": CANARY},
        {"prompt": [CANARY]},
        {"route": CANARY},
        {"file": None, "imageDataUrl": CANARY},
        {"file": None, "binary": CANARY},
    ]
    for number, fields in enumerate(faults):
        socket.frame(number, **{"prompt": CANARY, "file": picture, **fields})
        heard = socket.hear()
        assert heard["type"] == "error", heard
        check_silent(str(heard))
    for number, error in enumerate(ERRORS[1:], start=len(faults)):
        engine.refusals.append(error)  # type: ignore[arg-type]
        socket.frame(number, prompt=CANARY, file=picture)
        check_silent(str(socket.hear()))
    socket.frame(100, prompt=CANARY, file=picture)
    del (heard := socket.result(100))["files"]  # which hold the prompt for who asked
    check_silent(str(heard))


if __name__ == "__main__":
    main(cast("LogFormat", sys.argv[1]))
