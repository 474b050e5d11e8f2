"""What each caller may have at a time."""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest

from service.api_keys import Limits, Rate
from service.errors import RateLimited
from service.front.access_control.keyring import ANYBODY, Caller
from service.front.access_control.quotas import Quotas


class Clock:
    """Time that passes when a test says so, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_random_callers_stay_within_their_limits() -> None:
    """Whatever comes and goes in whatever order, no caller has more than it may, and none less."""
    rng = random.Random(2)
    for _ in range(40):
        clock = Clock()
        quotas = Quotas(clock)
        callers = [
            Caller("a", Limits(concurrent=rng.randint(0, 4))),
            Caller("b", Limits(rate=Rate(rng.randint(1, 5), 1.0))),
            ANYBODY,
        ]
        held: dict[str, list[ExitStack]] = {}
        for _ in range(200):
            clock.now += rng.random() / 10
            caller = rng.choice(callers)
            mine, most = held.setdefault(caller.id, []), caller.limits.concurrent
            if mine and rng.random() < 0.5:
                mine.pop(rng.randrange(len(mine))).close()
                continue
            stack = ExitStack()
            try:
                stack.enter_context(quotas.request(caller))
                mine.append(stack)
            except RateLimited:
                assert len(mine) == most or caller.limits.rate
            assert most is None or len(mine) <= most


def test_a_rate_lets_through_what_it_says_and_tells_the_wait() -> None:
    """Ten in a burst, then one each tenth of a second; the wait is in whole seconds, at least 1."""
    clock = Clock()
    quotas, caller = Quotas(clock), Caller("a", Limits(rate=Rate(6, 60.0)))
    for _ in range(6):
        with quotas.request(caller):
            pass
    with pytest.raises(RateLimited) as raised, quotas.request(caller):
        pass
    assert raised.value.retry_after_s == 10
    clock.now += 10
    with quotas.request(caller):
        pass


def test_what_is_refused_for_its_number_costs_no_token() -> None:
    """A caller at its number keeps its rate for when one of its requests has ended."""
    quotas = Quotas(Clock())
    caller = Caller("a", Limits(concurrent=1, rate=Rate(2, 3600.0)))
    with quotas.request(caller), pytest.raises(RateLimited), quotas.request(caller):
        pass
    with quotas.request(caller):
        pass


def test_two_keys_of_one_caller_share_its_limits() -> None:
    """A key that is being replaced gives nobody twice as much."""
    quotas = Quotas(Clock())
    old, new = (Caller("a", Limits(concurrent=1), digest) for digest in (b"old", b"new"))
    with quotas.request(old), pytest.raises(RateLimited), quotas.request(new):
        pass


def test_the_wait_follows_how_long_requests_take() -> None:
    """Where requests take long, the next one is told to wait for about one of them to end."""
    clock = Clock()
    quotas, caller = Quotas(clock), Caller("a", Limits(concurrent=1))
    for _ in range(40):
        with quotas.request(caller):
            clock.now += 20
    with quotas.request(caller), pytest.raises(RateLimited) as raised, quotas.request(caller):
        pass
    assert raised.value.retry_after_s == 20
