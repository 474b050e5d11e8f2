"""The backends of the wire's tests: a fake engine, and whole services on real engines.

A test with the fixture `address` runs on the fake engine. With the mark `real_engines` it also runs
on each whole service. A test with the fixture `engine` inspects or directs the fake, and runs there
only.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import httpx
import pytest

from models.styles.presets import load_styles
from service.front.images.codec import read_metadata
from service.protocol.jobs import GenerationParams
from tests.support.fakes import FakeEngineClient
from tests.support.servers import KEY, MAX_BODY_BYTES, START_S, wait_until
from tests.whole_service.test_service import Served

NUM_ENGINES = 2
_COMMON = {
    "REFINE_API_KEYS": f"another,{KEY}",
    "REFINE_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
    # Longer than ours: these cases are of the wire, and other work may share the cores.
    "REFINE_DEADLINE_S": "120",
    "REFINE_LIVE_DEADLINE_S": "120",
    "REFINE_UPSCALE_DEADLINE_S": "280",
}
SERVICES = {
    "ray": {
        "REFINE_RAY": "local",
        "REFINE_RAY_MIN_ENGINES": str(NUM_ENGINES),
        "REFINE_RAY_CPUS_PER_ENGINE": "0.5",
    },
    "devices": {"REFINE_DEVICE": ",".join(["cpu"] * NUM_ENGINES)},
}
"""Whole services on `pocket`, by their settings."""

BACKENDS = ["fake", *SERVICES]
_OF_ONE = {"engine": "fake", "cluster": "ray", "two_devices": "devices"}
"""Fixtures of cases that are about one backend."""


def backends_of(case: pytest.Metafunc) -> list[object]:
    """Return the backends of a test; those with real engines are slow."""
    for fixture, backend in _OF_ONE.items():
        if fixture in case.fixturenames:
            return [backend]
    if case.definition.get_closest_marker("real_engines") is None:
        return ["fake"]
    marks = [pytest.mark.slow, pytest.mark.alone]
    return ["fake", *(pytest.param(name, marks=marks) for name in SERVICES)]


class Services:
    """Starts a whole service when a case first asks for it; there is one at a time."""

    def __init__(self) -> None:
        self._name = ""
        self._service: Served | None = None

    def named(self, name: str) -> Served:
        """Return a service all of whose engines serve."""
        if self._service is None or name != self._name:
            self.end()
            self._name, self._service = name, Served("pocket", **_COMMON, **SERVICES[name])
        service = self._service
        wait_until(lambda: num_serving(service) == NUM_ENGINES, NUM_ENGINES * START_S)
        return service

    def end(self) -> None:
        if self._service is not None:
            self._service.process.terminate()
            self._service.process.wait(60)
            self._service.end()
        self._service = None


def num_serving(service: Served) -> int:
    """The engines that serve, as the service tells; 0 while it does not answer."""
    assert service.process.poll() is None, "the service has ended"
    try:
        engines = service.readiness().json().get("engines", [])
    except httpx.TransportError:
        return 0
    return [engine["state"] for engine in engines].count("serving")


class Witness(Protocol):
    """What reached the engine since a case began, as far as the case can know it."""

    @property
    def num_asked(self) -> int:
        """Jobs that the engine was asked for."""
        ...

    def params_of(self, picture: bytes) -> GenerationParams:
        """What the newest picture was asked with."""
        ...


class FakeWitness:
    """Knows what the fake engine was asked."""

    def __init__(self, engine: FakeEngineClient) -> None:
        self.engine = engine

    @property
    def num_asked(self) -> int:
        return len(self.engine.asked)

    def params_of(self, picture: bytes) -> GenerationParams:  # noqa: ARG002
        return self.engine.asked[-1][0]


class ServiceWitness:
    """Knows what the service tells: in `/metrics`, and in the pictures themselves."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before = 0
        self._before = self.num_asked

    @property
    def num_asked(self) -> int:
        headers = {"Authorization": f"Bearer {KEY}"}
        text = httpx.get(self._url + "/metrics", headers=headers, timeout=60).text
        counted = re.search(r'refine_stage_seconds_count\{stage="denoise"\} (\S+)', text)
        return (int(float(counted[1])) if counted else 0) - self._before

    def params_of(self, picture: bytes) -> GenerationParams:
        told: Any = read_metadata(picture)
        assert told is not None
        return GenerationParams(
            prompt=load_styles()[told["style"]].apply(told["prompt"]),
            height=told["height"],
            width=told["width"],
            num_inference_steps=told["steps"],
            strength=told["strength"],
            guidance_scale=told["guidance"],
            seeds=(told["seed"],),
        )
