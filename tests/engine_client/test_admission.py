"""Who may wait: bounds, estimates held against deadlines, and an honest time for another try."""

from __future__ import annotations

import random

import pytest

from service.engine_client.admission import CAUTION, Admission, Ticket
from service.errors import QueueFull, RateLimited, RefineError


def warmed(unit_s: float = 1.0, **bounds: int) -> Admission:
    """An admission that has seen the engine do a unit of work in `unit_s`."""
    bounds = {"max_waiting": 100, "max_waiting_per_caller": 100, **bounds}
    admission = Admission(**bounds)
    ticket = admission.enter("", 1.0, now=0.0)
    admission.finished(ticket, unit_s, unit_s)
    admission.leave(ticket)
    return admission


def test_what_would_be_late_is_refused_at_once() -> None:
    """Ten units wait, a second each: twelve seconds with caution are given, eleven are not."""
    admission = warmed()
    for _ in range(9):
        admission.enter("", 1.0, now=1.0)
    admission.check(timeout_s=CAUTION * 10.01, work=1.0)
    with pytest.raises(QueueFull) as raised:
        admission.check(timeout_s=7.5, work=1.0)
    assert raised.value.retry_after_s is not None
    assert 1 <= raised.value.retry_after_s <= 10


def test_an_idle_engine_refuses_nobody() -> None:
    """However slow the last job was, with nothing before it the next one is tried."""
    warmed(unit_s=1000.0).check(timeout_s=0.1, work=1.0)


def test_another_s_flood_counts_only_up_to_one_s_own_share() -> None:
    """A caller behind a flood waits for as much of it as they ask for themselves."""
    admission = warmed()
    for _ in range(50):
        admission.enter("flood", 1.0, now=1.0)
    assert admission.wait_s("flood", 1.0) == pytest.approx(50)
    assert admission.wait_s("lone", 1.0) == pytest.approx(1)
    admission.check(caller="lone", timeout_s=5, work=1.0)
    with pytest.raises(QueueFull):
        admission.check(caller="flood", timeout_s=5, work=1.0)


def test_bounds_hold_for_all_and_for_each() -> None:
    """A caller's own bound is told as theirs, the common one as the queue's."""
    admission = warmed(max_waiting=6, max_waiting_per_caller=2)
    for _ in range(3):
        admission.check(caller="a")
        admission.enter("a", 1.0, now=1.0)
    with pytest.raises(RateLimited) as raised:
        admission.check(caller="a")
    assert raised.value.retry_after_s == 3
    for name in "bcde":
        admission.check(caller=name)
        admission.enter(name, 1.0, now=1.0)
    with pytest.raises(QueueFull):
        admission.check(caller="f")


def test_without_names_only_the_common_bound_holds() -> None:
    """A service without keys has one caller, who may fill the queue."""
    admission = warmed(max_waiting=6, max_waiting_per_caller=1)
    for _ in range(7):
        admission.check()
        admission.enter("", 1.0, now=1.0)
    with pytest.raises(QueueFull):
        admission.check()


def test_a_pause_is_no_speed() -> None:
    """A laptop that slept for an hour does not make the service refuse everybody."""
    admission = warmed()
    ticket = admission.enter("", 1.0, now=10.0)
    admission.finished(ticket, 3610.0, 1.0)
    admission.leave(ticket)
    assert admission.wait_s() == 0
    admission.enter("", 1.0, now=3610.0)
    assert admission.wait_s() < 5


@pytest.mark.parametrize("seed", range(10))
def test_invariants_hold_over_random_lives(seed: int) -> None:
    """Bounds are never passed, waits never negative, and when all have left nothing is left."""
    rng = random.Random(seed)
    admission = Admission(max_waiting=8, max_waiting_per_caller=3)
    inside: list[Ticket] = []
    refusals: list[RefineError] = []
    now = 0.0
    for _ in range(2000):
        now += rng.random()
        caller, work = rng.choice(["", "a", "b", "c"]), rng.uniform(0.5, 60)
        if rng.random() < 0.6:
            try:
                admission.check(caller=caller, timeout_s=rng.uniform(1, 500), work=work)
            except RefineError as error:
                refusals.append(error)
            else:
                inside.append(admission.enter(caller, work, now))
        elif inside:
            ticket = inside.pop(rng.randrange(len(inside)))
            if rng.random() < 0.7:
                admission.finished(ticket, now, rng.random())
            admission.leave(ticket)
        assert admission.num_pending == len(inside) <= 9
        assert all(sum(t.caller == name for t in inside) <= 4 for name in "abc")
        assert admission.wait_s(caller, work) >= 0
    assert {type(refusal.retry_after_s) for refusal in refusals} == {int}
    assert all(1 <= (refusal.retry_after_s or 0) <= 60 for refusal in refusals)
    for ticket in inside:
        admission.leave(ticket)
    assert admission.wait_s(work=1e9) == admission.num_pending == 0
