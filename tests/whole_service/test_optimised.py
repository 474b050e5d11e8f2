"""`python -O` strips assert statements: the service must not notice."""

from __future__ import annotations

import json
import re
import signal
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.soak.hostile_bodies import bodies, texts
from tests.support.servers import KEY, START_S
from tests.support.sockets import greeted
from tests.whole_service.test_service import Served, body, served

JSON = {"content-type": "application/json"}
FRESH = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}")
SETTINGS = {"REFINE_API_KEYS": KEY, "REFINE_DECODE_ISOLATION": "process"}

Answers = dict[str, tuple[int, str]]


def asked_everything(service: Served) -> Answers:
    """What each way through the service answers, but for ids that are new each time."""
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=120) as http:
        answers = {
            **pictures(http),
            **{f"body {name}": refused(post(http, raw)) for name, raw in bodies().items()},
            **{
                f"text {name}": post(http, body(imageDataUrl=text))
                for name, text in texts().items()
            },
            "nowhere": told(http.get("/nowhere")),
            "wrong method": told(http.get("/lcm-instant-refine")),
            "no key": told(httpx.get(service.url + "/v1/models")),
            "wrong key": told(httpx.get(service.url + "/v1/models", headers=wrong_key())),
            "wrong type": told(http.post("/lcm-instant-refine", content=b"{}")),
            "too large": post(http, b" " * (13 << 20)),
            "models": told(http.get("/v1/models")),
            "document": told(http.get("/openapi.json")),
        }
    return answers | {"socket": (0, str(painted(service.url)))}


def pictures(http: httpx.Client) -> Answers:
    mask = body()["imageDataUrl"]
    wishes: dict[str, dict[str, Any]] = {
        "lcm-instant-refine": {"numImages": 2, "style": "ANIME", "outputFormat": "png"},
        "generations-lcm": {"steps": 16, "strength": 0.1},
        "lcm-inpainting": {"maskDataUrl": mask},
        "lcm-upscale": {"refineStrength": 0.5},
    }
    return {route: post(http, body(**wish), f"/{route}") for route, wish in wishes.items()}


def post(
    http: httpx.Client, content: dict[str, Any] | bytes, route: str = "/lcm-instant-refine"
) -> tuple[int, str]:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return told(http.post(route, content=raw, headers=JSON))


def refused(answer: tuple[int, str]) -> tuple[int, str]:
    """Leave a picture out: what has no seed has another one each time."""
    return (200, "a picture") if answer[0] == HTTPStatus.OK else answer


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, FRESH.sub("ID", answer.text)


def wrong_key() -> dict[str, str]:
    return {"authorization": "Bearer wrong"}


def painted(url: str) -> list[object]:
    """A painter's pictures and refusals."""
    with greeted(url) as socket:
        socket.frame(1, seed=5)
        result = socket.result(1)
        socket.frame(2, steps=99)
        socket.frame(2, seed=6)
        return [result["files"], result["seed"], socket.hear(), socket.hear()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_service_is_the_same_without_its_assertions(tiny_checkpoint: Path) -> None:
    """Pictures to the byte, refusals to the letter, and the end at a signal."""
    answers: list[Answers] = []
    for optimised in ({}, {"PYTHONOPTIMIZE": "1"}):
        # Nothing is cached of modules without assertions: torch's, too, are compiled first.
        with served(tiny_checkpoint, START_S * 3, **SETTINGS, **optimised) as service:
            answers.append(asked_everything(service))
            front = psutil.Process(service.process.pid)
            assert len(front.children()) > 1  # the engine and the decoders
            for process in (front, *front.children()):
                assert ("PYTHONOPTIMIZE" in process.environ()) == bool(optimised)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(60) == 0
    plain, stripped = answers
    assert stripped.keys() == plain.keys()
    assert {name for name in plain if plain[name] != stripped[name]} == set()
    assert {status for status, _ in plain.values()} >= {200, 400, 401, 404, 405, 413, 415}
