"""The painter's state machine, and the small parts around it, without a socket or a clock."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import ExitStack

import pytest
from starlette.datastructures import Headers

from service.errors import OriginRefused, RateLimited, ValidationFailed
from service.front.access_control.socket_limit import SocketLimit
from service.front.access_control.tickets import LIFETIME_S, TicketBox
from service.front.http.origins import check_origin
from service.front.realtime.frame_queue import Session
from service.front.realtime.messages import Frame
from service.front.realtime.pacing import FramePacer
from service.front.schemas.requests import RefineRequest


def frame(frame_id: int) -> Frame:
    request = RefineRequest.model_validate({"imageDataUrl": "", "prompt": ""})
    return Frame(frame_id, "generations-lcm", request)


class RandomPainter:
    """Does to a session whatever may be done to it, and keeps what each frame was answered."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.session = Session()
        self.next_id = 0
        self.offered: list[int] = []
        self.answers: Counter[int] = Counter()
        self.results: list[int] = []

    def offer(self) -> None:
        self.next_id += self.random.randint(1, 3)
        self.session.open(self.next_id)
        self.offered.append(self.next_id)
        replaced = self.session.offer(frame(self.next_id))
        if replaced is not None:
            assert replaced.by == self.next_id
            self.answers[replaced.id] += 1

    def advance(self) -> None:
        """Start what waits, or end what runs: by a result, an error, or not at all."""
        running = self.session.running
        if running is None:
            if self.session.waiting is not None:
                assert self.session.start() is self.session.running
        elif self.random.random() < 0.3:
            replaced = self.session.defer()
            if replaced is not None:
                assert replaced.id == running.id < replaced.by
                self.answers[replaced.id] += 1
        else:
            self.session.finish()
            self.answers[running.id] += 1
            self.results.append(running.id)

    def check(self) -> None:
        unanswered = set(self.offered) - self.answers.keys()
        held = {kept.id for kept in (self.session.running, self.session.waiting) if kept}
        assert unanswered == held
        assert len(held) <= 2
        assert self.session.is_idle == (not held)


@pytest.mark.parametrize("seed", range(50))
def test_every_frame_has_one_answer_and_the_last_one_runs(seed: int) -> None:
    """Whatever happens: one runs and one waits, ids of results rise, none is lost or told twice."""
    painter = RandomPainter(seed)
    for _ in range(300):
        painter.random.choice([painter.offer, painter.advance])()
        painter.check()
    while not painter.session.is_idle:
        painter.advance()
    assert painter.answers == Counter(painter.offered)
    assert painter.results == sorted(set(painter.results))
    assert painter.results[-1] == painter.offered[-1]


def test_ids_that_do_not_rise_are_refused() -> None:
    """Neither an id again nor a lower one passes, even when it was never offered."""
    session = Session()
    session.open(3)
    for stale in (3, 2, 0):
        with pytest.raises(ValidationFailed):
            session.open(stale)
    session.open(4)


def test_a_slow_engine_asks_for_pauses_and_a_fast_one_for_none() -> None:
    """The interval follows the mean; above 1.5 s a frame, the pen had better rest."""
    cadence = FramePacer()
    assert (cadence.mean_ms, cadence.interval_ms, cadence.pause_ms) == (None, 0, 0)
    for mean_ms, interval_ms, pause_ms in [(40, 5, 0), (800, 100, 0), (1600, 200, 250)]:
        cadence = FramePacer()
        for _ in range(3):
            cadence.add(mean_ms)
        assert cadence.mean_ms == pytest.approx(mean_ms)
        assert cadence.interval_ms == pytest.approx(interval_ms)
        assert cadence.pause_ms == pause_ms
    assert FramePacer(60_000).interval_ms == 250
    slower = FramePacer(100)
    slower.add(200)
    assert slower.mean_ms == pytest.approx(120)


def test_a_ticket_is_worth_one_socket_for_half_a_minute() -> None:
    """Used, unknown or expired ones are worth nothing; each belongs to who asked for it."""
    box: TicketBox[str] = TicketBox()
    ticket, late = box.issue("ann", 0), box.issue("bob", 0)
    assert box.redeem(ticket, LIFETIME_S) == "ann"
    assert box.redeem(ticket, LIFETIME_S) is None
    assert box.redeem(late, LIFETIME_S + 0.1) is None
    assert box.redeem("\ud800", 0) is None


def test_tickets_take_little_memory_and_nobody_else_s() -> None:
    """Who asks for thousands keeps his last 16, and others keep theirs; old ones are forgotten."""
    box: TicketBox[str] = TicketBox()
    kept = box.issue("ann", 0)
    tickets = [box.issue("bob", 1) for _ in range(2000)]
    assert [box.redeem(ticket, 2) for ticket in tickets[-17:]] == [None] + ["bob"] * 16
    assert box.redeem(kept, 2) == "ann"
    box.issue("bob", 3)
    box.issue("ann", 1000)
    assert len(box._tickets) == 1


def test_seats_are_counted_for_each_and_for_all() -> None:
    """A key's, everybody's and the strangers' are three numbers; leaving gives a seat back."""
    seats = SocketLimit(3, 2)
    with seats.taken_by("ann"), seats.taken_by("ann"):
        with pytest.raises(RateLimited, match="2 sockets"), seats.taken_by("ann"):
            pass
        with seats.taken_by(None):
            with pytest.raises(RateLimited, match="too many"), seats.taken_by("bob"):
                pass
            with ExitStack() as strangers:
                for _ in range(3):
                    strangers.enter_context(seats.stranger())
                with pytest.raises(RateLimited):
                    strangers.enter_context(seats.stranger())
        assert seats.num_taken == 2
    assert seats.num_taken == 0
    with seats.taken_by(None), seats.taken_by(None), seats.taken_by(None):
        assert seats.num_taken == 3  # without keys nobody is told from others


@pytest.mark.parametrize(
    ("origin", "host", "passes"),
    [
        (None, "localhost:8000", True),
        ("http://localhost:8000", "localhost:8000", True),
        ("https://canvas.example", "canvas.example", True),  # a proxy speaks TLS
        ("https://canvas.example", "canvas.example:443", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("HTTP://LOCALHOST:8000", "localhost:8000", True),
        ("https://listed.example", "localhost:8000", True),
        ("http://listed.example", "localhost:8000", False),
        ("https://listed.example.evil.example", "localhost:8000", False),
        ("http://localhost:8001", "localhost:8000", False),
        ("http://evil.example", "localhost:8000", False),
        ("http://localhost", "localhost:8000", False),
        ("null", "null", False),
        ("null", "localhost:8000", False),
        ("", "", False),
        ("file://", "", False),
        ("http://localhost:x", "localhost:x", False),
        ("http://[", "[", False),
    ],
)  # fmt: skip
def test_origins_are_compared_whole(origin: str | None, host: str, *, passes: bool) -> None:
    """The service's own and listed ones pass; others, `null` and nonsense do not."""
    headers = Headers({"host": host} | ({} if origin is None else {"origin": origin}))
    allowed = frozenset({"https://listed.example"})
    if passes:
        check_origin(headers, allowed)
    else:
        with pytest.raises(OriginRefused):
            check_origin(headers, allowed)
