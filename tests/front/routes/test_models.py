"""What is told of compiled forwards: how far each engine is, and what a checkpoint has warm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.protocol.messages import Heartbeat
from tests.support.api import Api
from tests.support.fakes import FakeEngineClient


def beat(num_warm: int, rows: dict[str, list[int]]) -> Heartbeat:
    return Heartbeat("serving", num_warm=num_warm, num_targets=8, warm={"pocket": rows})


def test_what_is_warm_is_told(api: Api, engine: FakeEngineClient) -> None:
    """Readiness counts for each engine; a checkpoint has warm what all that serve have."""
    usual = engine.health
    members = (
        replace(usual, heartbeat=beat(5, {"512x512": [1, 2, 4], "640x640": [1]})),
        replace(usual, heartbeat=beat(2, {"512x512": [1, 4]})),
        replace(usual, state="restarting", heartbeat=None),
    )
    engine.health = replace(usual, members=members)
    try:
        engines = api.http.get("/health/ready").json()["engines"]
        listed = {one["id"]: one for one in api.http.get("/v1/models").json()["models"]}
    finally:
        engine.health = usual
    assert [one["warm"] for one in engines] == [{"done": 5, "of": 8}, {"done": 2, "of": 8}, None]
    assert listed["pocket"]["warm"] == {"512x512": [1, 4]}
    assert listed["lcm-dreamshaper-v7"]["warm"] == {}


@pytest.mark.real_engines
def test_eager_engines_have_nothing_warm(api: Api) -> None:
    """Without compiled forwards, or before the first heartbeat."""
    listed = {one["id"]: one for one in api.http.get("/v1/models").json()["models"]}
    assert listed["pocket"]["warm"] == {}
