"""The capacity model: what its figures must do, whatever the card."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.service.capacity import (
    Fleet,
    Measured,
    capacity,
    engine_pictures_per_s,
    fleet_for,
    plan,
)

CARD = Measured("a card", step_ms=8, batch=8, encode_ms=2, decode_ms=4, engine_price_per_hour=3.6)


def test_an_engine_makes_what_its_times_say() -> None:
    """Four steps of a shared call, an encode and a decode: 10 ms a picture are 100 a second."""
    assert engine_pictures_per_s(CARD) == pytest.approx(100)


@pytest.mark.parametrize(
    ("change", "fleet", "bottleneck"),
    [
        ({}, Fleet(engines=1, fronts=1), "engines"),
        ({"front_core_ms": 100}, Fleet(engines=2, fronts=1), "front cores"),
        ({"front_loop_ms": 20}, Fleet(engines=2, fronts=1), "front event loops"),
        ({"bytes_in": 10**8}, Fleet(engines=2, fronts=1), "network"),
    ],
)
def test_what_is_least_is_named(change: dict[str, float], fleet: Fleet, bottleneck: str) -> None:
    """The capacity is that of the resource that gives way first."""
    carried = capacity(replace(CARD, **change), fleet)  # type: ignore[arg-type]
    assert carried.bottleneck == bottleneck
    assert carried.pictures_per_s == min(
        carried.engines, carried.front_cores, carried.front_loops, carried.network
    )


def test_a_price_is_of_the_pictures_that_are_made() -> None:
    """100 pictures a second for 3.60 and 0.16 dollars an hour are 10.44 dollars a million."""
    carried = capacity(CARD, Fleet(engines=1, fronts=1))
    assert carried.dollars_per_million == pytest.approx(1e6 * 3.76 / 360_000)


def test_a_fleet_has_fronts_to_keep_its_engines_busy() -> None:
    """However many engines there are, they stay what limits the fleet, with 30 % to spare."""
    for engines in (1, 7, 100, 1000):
        fleet = fleet_for(CARD, engines)
        carried = capacity(CARD, fleet)
        assert carried.bottleneck == "engines"
        assert min(carried.front_cores, carried.front_loops) >= 1.3 * carried.engines
    rates = [row["pictures_per_s"] for row in plan(CARD)]
    assert rates == sorted(rates)
