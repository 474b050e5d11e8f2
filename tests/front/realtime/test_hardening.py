"""Hostile and unlucky painters, against a real server with a fake engine behind it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from fastapi.routing import iter_route_contexts
from PIL import Image
from starlette.routing import WebSocketRoute
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from benchmarks.soak.picture_files import encoded
from service.engine_client.base import EngineHealth
from service.errors import EngineStarting, QueueFull, RateLimited
from service.front.access_control.keyring import KeyRing
from service.front.app import create_app
from service.front.http.protocol import TimeoutHttpProtocol
from service.front.realtime.messages import MAX_HELLO_CHARACTERS
from service.front.realtime.session import RealtimeSession
from service.protocol.jobs import Finished
from service.settings import Settings
from tests.support.api import Api
from tests.support.fakes import FakeEngineClient
from tests.support.servers import KEY, running_app, running_server, wait_until
from tests.support.sockets import PICTURE, PainterSocket, greeted, opened

# Who may open one.


def status_of(url: str, **options: Any) -> int:
    """Try to open a socket; return the HTTP status."""
    try:
        with opened(url, **options):
            return 101
    except InvalidStatus as refused:
        content = json.loads(refused.response.body or b"{}")
        assert content.keys() == {"error", "path", "code"}
        return refused.response.status_code


def test_foreign_pages_may_not_connect() -> None:
    """No Origin, the service's own and a listed one open; another and `null` are answered 403."""
    with running_server(api_keys=KEY, allowed_origins="https://listed.example") as url:
        own = url
        for origin, status in [
            (None, 101), (own, 101), ("https://listed.example", 101),
            ("https://evil.example", 403), ("null", 403), ("https://listed.example.evil", 403),
        ]:  # fmt: skip
            assert status_of(url, origin=origin) == status, origin


def test_without_keys_only_this_machine_s_names_open_a_socket() -> None:
    """Against DNS rebinding: its page is of the same origin as the service, by a foreign name."""
    with running_server() as url:
        port = url.rpartition(":")[2]
        for host, status in [("localhost", 101), ("evil.example", 400)]:
            name = f"ws://{host}:{port}/v1/realtime"
            with socket.create_connection(("127.0.0.1", int(port))) as raw:
                try:
                    with connect(name, sock=raw, origin=Origin(f"http://{host}:{port}")):
                        opened_status = 101
                except InvalidStatus as refused:
                    opened_status = refused.response.status_code
            assert opened_status == status


@pytest.mark.usefixtures("engine")  # its server logs into this process
def test_a_key_in_the_address_opens_nothing_and_is_not_logged(
    api: Api, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only the first message counts; a key in the query is found in no log."""
    with connect(api.url.replace("http", "ws") + f"/v1/realtime?api_key={KEY}") as connection:
        painter = PainterSocket(connection)
        painter.tell("hello")
        painter.error("access-denied")
        assert painter.closed() == 4401
    with greeted(api.url) as painter:
        painter.frame(1, prompt="a canary in the coal mine")
        painter.result(1)
    logged = "".join(capfd.readouterr())
    assert "socket" in logged
    assert KEY not in logged
    assert "canary" not in logged


def test_who_says_nothing_is_closed(api: Api) -> None:
    """Five seconds without a greeting: 4401."""
    started = time.monotonic()
    with opened(api.url) as painter:
        assert painter.closed() == 4401
    assert 4 < time.monotonic() - started < 15


def test_a_long_greeting_is_not_read(api: Api) -> None:
    """A stranger's first message is as long as a key may be, and no more is parsed or hashed."""
    with opened(api.url) as painter:
        painter.tell("hello", key="k" * MAX_HELLO_CHARACTERS)
        painter.error("bad-request")
        assert painter.closed() == 4401


def test_caps_on_sockets_leave_http_alone() -> None:
    """Of a key and of all: one more is told why and closed with 1013; a seat left is free."""
    with running_server(api_keys=f"{KEY},another", max_sockets=3, max_sockets_per_key=2) as url:
        with ExitStack() as seats:
            for _ in range(2):
                seats.enter_context(greeted(url))
            for key in (KEY, "another"):
                with opened(url) as painter:
                    painter.tell("hello", key=key)
                    painter.error("rate-limited")
                    assert painter.closed() == 1013
                if key == KEY:
                    seats.enter_context(greeted(url, "another"))
            assert httpx.get(url + "/health/ready").status_code == 200
        with greeted(url):
            pass


def test_strangers_cannot_take_the_seats_of_callers() -> None:
    """Those who have not said a key are counted apart; too many are refused unopened."""
    with running_server(api_keys=KEY, max_sockets=2) as url, greeted(url):
        with opened(url), opened(url):
            assert status_of(url) == 429
        with greeted(url):
            pass


def test_a_revoked_key_ends_its_sockets_alone() -> None:
    """Within 5 s of the key's end its socket is closed with 4401; another key's stays."""
    app = create_app(Settings(api_keys=f"{KEY},another"), FakeEngineClient())
    with running_app(app) as (url, _), greeted(url) as mine, greeted(url, "another") as other:
        app.state.front.keys = KeyRing(["another"])
        started = time.monotonic()
        mine.error("access-denied")
        assert mine.closed() == 4401
        assert time.monotonic() - started < 5
        other.frame(1)
        other.result(1)


# What they may send.


def test_too_large_a_message_ends_the_socket(api: Api) -> None:
    """4 MiB pass, one byte more does not, nor do fragments that never end: 1009."""
    with greeted(api.url) as painter:
        painter.frame(1, file=bytes(4 << 20))
        painter.error("image-invalid", "$.imageDataUrl", 1)
        painter.connection.send(bytes((4 << 20) + 1))
        assert painter.closed() == 1009
    with greeted(api.url) as painter:
        fragments = (bytes(1 << 20) for _ in range(64))
        with suppress(ConnectionClosed):
            painter.connection.send(fragments)
        assert painter.closed() == 1009


@pytest.mark.usefixtures("engine")  # as above
def test_what_is_no_utf8_ends_the_socket(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    """1007, and nothing of it in the log."""
    with greeted(api.url) as painter:
        protocol = painter.connection.protocol
        with painter.connection.protocol_mutex:
            protocol.send_text(b"canary \xff", fin=True)
            painter.connection.send_data()
        assert painter.closed() == 1007
    assert "canary" not in "".join(capfd.readouterr())


def test_compression_is_not_offered(api: Api) -> None:
    """A bomb cannot be sent compressed: the extension is declined."""
    address = api.url.replace("http", "ws") + "/v1/realtime"
    with connect(address, compression="deflate") as connection:
        assert connection.response is not None
        assert "sec-websocket-extensions" not in connection.response.headers
        assert not connection.protocol.extensions


# How much they may take.


class SlowEngine(FakeEngineClient):
    """Takes its time, keeps nothing, and counts how many jobs it has at once."""

    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self.delay_s = delay_s
        self.num_running = 0
        self.most_at_once = 0

    async def generate(self, *arguments: Any, **options: Any) -> Finished:
        self.num_running += 1
        self.most_at_once = max(self.most_at_once, self.num_running)
        try:
            await asyncio.sleep(self.delay_s)
            return await super().generate(*arguments, **options)
        finally:
            self.num_running -= 1
            self.asked.clear()
            self.masks.clear()


def test_two_hundred_frames_a_second_leave_memory_flat() -> None:
    """At most one runs and one waits, the last one is answered, and memory does not grow."""
    engine = SlowEngine(0.05)
    big = PICTURE + bytes(200_000)  # what follows a JPEG is stripped
    last = 600
    answers: list[tuple[str, int]] = []
    with running_server(engine) as url, greeted(url, None) as painter:
        for frame_id in range(20):  # first of all, what is made once
            painter.frame(frame_id, file=big)
        while painter.hear().get("id") != 19:
            pass

        def read() -> None:
            while ("result", last) not in answers:
                content = painter.hear()
                answers.append((content["type"], content["id"]))

        reader = threading.Thread(target=read)
        reader.start()
        process = psutil.Process()
        before, grown = process.memory_info().rss, 0
        due = time.monotonic()
        for frame_id in range(20, last + 1):
            due += 1 / 200
            time.sleep(max(0.0, due - time.monotonic()))
            painter.frame(frame_id, file=big)
            grown = max(grown, process.memory_info().rss - before)
        reader.join(30)
        assert not reader.is_alive()
    assert sorted(frame_id for _, frame_id in answers) == list(range(20, last + 1))
    kinds = Counter(kind for kind, _ in answers)
    assert kinds.keys() == {"result", "replaced"}
    assert kinds["replaced"] > last / 2
    assert engine.most_at_once == 1
    # Kept, the pictures would be 120 MB. The client lives in the same process, and has its share.
    assert grown < 40 << 20


def noise() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


def test_who_stops_reading_is_let_go() -> None:
    """Answers that nobody takes: in 10 s the socket is gone, and its seat and job with it."""
    app = create_app(Settings(), SlowEngine(0.0))
    picture = noise()
    with running_app(app) as (url, _):
        raw = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        with greeted(url, None, sock=raw, max_queue=1, close_timeout=1) as painter:
            stopped = threading.Event()

            def paint() -> None:
                with suppress(ConnectionClosed):
                    for frame_id in itertools.count():
                        painter.frame(frame_id, file=picture, outputFormat="png")
                        if stopped.wait(0.1):
                            return

            thread = threading.Thread(target=paint)
            thread.start()
            wait_until(lambda: app.state.front.seats.num_taken == 0, 40)
            stopped.set()
            thread.join(20)
            assert not thread.is_alive()
        assert httpx.get(url + "/health/live").status_code == 200


# What they are told when the service is not well.


class StartingEngine(FakeEngineClient):
    """Takes nothing until it is told that it serves."""

    def __init__(self) -> None:
        super().__init__()
        self.health = EngineHealth("starting", "loading")

    def check_accepts(self, caller: str = "", timeout_s: float = 0.0) -> None:  # noqa: ARG002
        if self.health.state != "serving":
            raise EngineStarting("the engine is still starting", retry_after_s=5)


def test_a_frame_waits_for_an_engine_that_starts() -> None:
    """Newer ones take its place meanwhile; the state is told when it changes."""
    engine = StartingEngine()
    with running_server(engine) as url, opened(url) as painter:
        painter.tell("hello")
        ready = painter.hear()
        assert (ready["ready"], ready["state"], ready["phase"]) == (False, "starting", "loading")
        painter.frame(1)
        painter.frame(2)
        assert painter.hear() == {"type": "replaced", "id": 1, "by": 2}
        engine.health = FakeEngineClient().health
        received = [painter.connection.recv(20) for _ in range(3)]
        messages = [json.loads(text) for text in received if isinstance(text, str)]
        assert {message["type"] for message in messages} == {"result", "status"}
        [status] = [message for message in messages if message["type"] == "status"]
        assert (status["ready"], status["state"]) == (True, "serving")


class FullForOneKey(FakeEngineClient):
    """Has no room for a key's frames a few times; keeps the deadlines that it was asked with."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.deadlines_s: list[float] = []

    def check_accepts(self, caller: str = "", timeout_s: float = 0.0) -> None:  # noqa: ARG002
        self.deadlines_s.append(timeout_s)
        if len(self.deadlines_s) <= self.times:
            raise RateLimited("16 requests of this key wait already", retry_after_s=1)


def test_a_socket_outlives_the_bounds_of_a_request(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What holds for the head and the body of a request ends where a socket begins."""
    monkeypatch.setattr(TimeoutHttpProtocol, "head_s", 0.3)
    monkeypatch.setattr(TimeoutHttpProtocol, "request_s", 0.5)
    with greeted(api.url) as painter:
        time.sleep(1.5)
        painter.frame(1)
        painter.result(1)


def test_a_frame_waits_where_its_key_has_too_much_waiting() -> None:
    """Its other requests are at their bound: the socket stays, and the frame is answered after."""
    engine = FullForOneKey(3)
    with running_server(engine, live_deadline_s=7) as url, greeted(url, None) as painter:
        painter.frame(1)
        painter.result(1)
    assert engine.deadlines_s == [7.0] * 5, "what cannot be done in time is not decoded"


def test_a_frame_that_waits_again_counts_once_against_the_rate() -> None:
    """Others took the last place before it, again and again: its key's one request is enough."""
    engine = FakeEngineClient()
    engine.refusals.extend(QueueFull("full", retry_after_s=1) for _ in range(3))
    with (
        running_server(engine, api_keys=KEY, key_limits="rate=1/h") as url,
        greeted(url) as painter,
    ):
        painter.frame(1)
        painter.result(1)
        painter.frame(2)
        painter.error("rate-limited", frame_id=2)


def test_text_that_is_no_unicode_is_a_bad_picture(api: Api) -> None:
    """Half of a surrogate pair in a frame, after an answer with which it is compared."""
    with greeted(api.url) as painter:
        painter.frame(1, seed=1)
        painter.result(1)
        painter.frame(2, file=None, seed=1, imageDataUrl="\ud800")
        painter.error("image-invalid", "$.imageDataUrl", 2)


def test_the_bytes_of_frames_are_bounded_together() -> None:
    """One more than fits is refused, the socket stays; with the answer its bytes are free."""
    engine = FakeEngineClient()
    engine.is_open.clear()
    file = encoded(Image.effect_noise((256, 256), 99), "PNG")
    most = len(file) + 1000
    with (
        running_server(engine, max_body_bytes=most, body_budget_bytes=most) as url,
        greeted(url, None) as one,
        greeted(url, None) as other,
    ):
        one.frame(1, file=file)
        wait_until(lambda: bool(engine.asked), 20)
        other.frame(1, file=file)
        other.error("overloaded", frame_id=1)
        engine.loop.call_soon_threadsafe(engine.is_open.set)
        one.result(1)
        other.frame(2, file=file)
        other.result(2)


def test_a_frame_waits_no_longer_than_its_deadline() -> None:
    """An engine that takes nothing for that long: the frame gets its refusal, the socket stays."""
    with (
        running_server(StartingEngine(), live_deadline_s=0.5) as url,
        greeted(url, None) as painter,
    ):
        for frame_id in (1, 2):
            painter.frame(frame_id)
            assert painter.error("starting", frame_id=frame_id)["retryAfterS"] == 5


def test_a_frame_that_takes_too_long_is_given_up() -> None:
    """The deadline of its route holds, and the engine is told to stop."""
    engine = FakeEngineClient()
    engine.is_open.clear()
    with running_server(engine, live_deadline_s=0.3) as url, greeted(url, None) as painter:
        painter.frame(1)
        painter.error("deadline-exceeded", frame_id=1)
    assert engine.num_aborted == 1


def test_a_drain_lets_the_running_frame_end() -> None:
    """It is answered, the waiting one is refused, sockets close with 1012, and none opens."""
    engine = SlowEngine(1.0)
    app = create_app(Settings(drain_delay_s=6), engine)
    with (
        running_app(app) as (url, server),
        greeted(url, None) as painter,
        greeted(url, None) as idle,
    ):
        painter.frame(1)
        wait_until(lambda: engine.num_running == 1, 5)
        painter.frame(2)
        server.handle_exit(signal.SIGTERM, None)
        assert status_of(url) == 503
        painter.result(1)
        painter.error("draining", frame_id=2)
        assert painter.closed() == 1012
        assert idle.closed() == 1012


def test_every_socket_asks_for_the_key(api: Api) -> None:
    """The routes are found in the application itself: a new one cannot forget its key."""
    app = create_app(Settings(), FakeEngineClient())
    paths = [
        found.path
        for found in iter_route_contexts(app.routes)
        if isinstance(found.original_route, WebSocketRoute)
    ]
    assert paths == ["/v1/realtime"]
    address = api.url.replace("http", "ws")
    for path in paths:
        for key in ({}, {"key": "wrong"}, {"ticket": "wrong"}):
            with connect(f"{address}{path}") as connection:
                painter = PainterSocket(connection)
                painter.tell("hello", **key)
                assert painter.closed() == 4401


def test_an_ended_painter_is_gone_without_a_collection() -> None:
    """Nothing of a socket is left in a cycle, which would keep its last pictures for long."""

    def painters() -> list[RealtimeSession]:
        return [one for one in gc.get_objects() if type(one) is RealtimeSession]

    with running_server(api_keys=KEY) as url:
        gc.collect()
        before = {id(one) for one in painters()}  # of other tests, which still hold them
        gc.disable()
        try:
            for _ in range(2):
                with greeted(url) as painter:
                    painter.frame(1)
                    painter.result(1)
                    assert not {id(one) for one in painters()} <= before, "nobody is counted"
            wait_until(lambda: {id(one) for one in painters()} <= before, 10)
        finally:
            gc.enable()
