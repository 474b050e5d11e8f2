"""Slow, endless and ambiguous peers, byte by byte: no client library sends broken HTTP."""

from __future__ import annotations

import contextlib
import inspect
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.front.http.protocol import TimeoutHttpProtocol
from tests.support.servers import KEY, running_server

ROUTE = b"POST /lcm-instant-refine HTTP/1.1\r\n"
HEADERS = b"Host: localhost\r\nContent-Type: application/json\r\n"
KEY_HEADER = f"Authorization: Bearer {KEY}\r\n".encode()
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
MAX_BODY_BYTES = 100_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server(api_keys=KEY, max_body_bytes=MAX_BODY_BYTES) as url:
        yield url
        assert httpx.get(url + "/health/live").status_code == 200


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become tenths."""
    for name, seconds in (("head_s", 0.6), ("request_s", 1.2), ("send_s", 1.0), ("linger_s", 0.4)):
        monkeypatch.setattr(TimeoutHttpProtocol, name, seconds)


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)))
    connection.settimeout(20)
    return connection


def read_all(connection: socket.socket) -> bytes:
    content = b""
    try:
        while data := connection.recv(65536):
            content += data
    except ConnectionResetError:
        pass
    return content


def asked(url: str, raw: bytes) -> tuple[int, dict[str, str]]:
    """Send bytes, read until the server closes; return the status and the error's fields."""
    with connect(url) as connection:
        connection.sendall(raw)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert b"x-request-id" in head.lower()
    return int(head.split(b" ")[1]), json.loads(body)


AMBIGUOUS = {
    "length and chunks": ROUTE + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": ROUTE + HEADERS + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "negative length": ROUTE + HEADERS + b"Content-Length: -1\r\n\r\n",
    "folded header": ROUTE + HEADERS + b"A: b\r\n c\r\n\r\n",
    "nul": ROUTE + HEADERS + b"A: b\0c\r\n\r\n",
    "no host": b"GET /health/live HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "host with a path": b"GET /health/live HTTP/1.1\r\nHost: a/?x=\r\n\r\n",
    "host with a name before it": b"GET /health/live HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "no path": b"GET @evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "path of foreign letters": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "not http": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "half a method": b"FO",
}  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_not_read(url: str, name: str) -> None:
    """400 in the common shape, and the connection is closed."""
    status, content = asked(url, AMBIGUOUS[name])
    assert (status, content["code"]) == (400, "bad-request")
    assert content.keys() == {"error", "path", "code"}


@pytest.mark.parametrize("method", ["FOO", "TRACE", "CONNECT", "M-SEARCH", "BREW"])
def test_a_method_that_nobody_knows_is_refused_as_a_wrong_one(url: str, method: str) -> None:
    """405 with what the path does take, 404 where there is none, 401 without the key."""
    with httpx.Client(base_url=url) as http:
        key = {"Authorization": f"Bearer {KEY}"}
        wrong = http.request(method, "/lcm-instant-refine", headers=key)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert wrong.json()["code"] == "method-not-allowed"
        assert method not in wrong.text
        assert set(http.request(method, "/health/live").headers["allow"].split(", ")) == {"GET"}
        assert http.request(method, "/nowhere").status_code == 404
        assert http.request(method, "/lcm-instant-refine").status_code == 401
        assert http.get("/health/live").status_code == 200, "the connection is broken"
        told = http.get("/metrics", headers=key).text
    assert 'method="other",route="/lcm-instant-refine",status="405"' in told
    assert f'method="{method}"' not in told


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 17_000 + b"\r\n\r\n", 431),
        (b"GET /health/live HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 1_000_000, 431),
        (b"GET /health/live HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"GET /health/live?" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ],
    ids=["bytes", "one without an end", "count", "path"],
)
def test_the_head_of_a_request_is_bounded(url: str, raw: bytes, status: int) -> None:
    """Too many headers, too many bytes of them, too long a path."""
    assert asked(url, raw)[0] == status


def test_what_is_just_within_passes(url: str) -> None:
    """A hundred headers and fifteen kilobytes are nobody's attack."""
    filled = {f"a{number}": "x" * 150 for number in range(94)}
    assert httpx.get(url + "/health/live", headers=filled).status_code == 200


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("first", "is_told"),
    [
        (b"", False),
        (b"GET /health/live HT", True),
        (b"GET /health/live HTTP/1.1\r\nHost: loc", True),
        (ROUTE + HEADERS + KEY_HEADER + b"Content-Length: 100\r\n\r\n{", True),
        (ROUTE + HEADERS + KEY_HEADER + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", True),
    ],
    ids=["silent", "half a line", "half a head", "half a body", "half of the chunks"],
)
def test_half_a_request_is_given_up(url: str, first: bytes, *, is_told: bool) -> None:
    """Whoever sends nothing is let go; who has begun is told 408."""
    with connect(url) as connection:
        connection.sendall(first)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ") == is_told
    assert bool(answer) == is_told


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "head", [b"", ROUTE + HEADERS + KEY_HEADER + b"Content-Length: 99\r\n\r\n"]
)
def test_a_trickle_does_not_buy_time(url: str, head: bytes) -> None:
    """A byte now and then moves no deadline."""
    started = time.monotonic()
    with connect(url) as connection:
        connection.sendall(head)
        for byte in b"GET /health/live HTTP/1.1 and so on" * 3:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("still open")
    assert time.monotonic() - started < 6


@pytest.mark.usefixtures("impatient")
def test_a_reader_who_stops_is_let_go(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Answers that nobody reads are thrown away with their connection, which is no error."""
    with connect(url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ends = time.monotonic() + 15
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < ends:
                connection.sendall(request * 100)
                time.sleep(0.05)
        assert time.monotonic() < ends, "still open"
    assert httpx.get(url + "/health/live").status_code == 200
    told = capfd.readouterr()
    assert "unforeseen" not in told.out + told.err


@pytest.mark.usefixtures("impatient")
def test_a_connection_that_rests_is_kept(url: str) -> None:
    """Between two requests more time may pass than a head may take."""
    with httpx.Client(base_url=url) as http:
        assert http.get("/health/live").status_code == 200
        time.sleep(1.5)
        assert http.get("/health/live").status_code == 200


@pytest.mark.usefixtures("impatient")
def test_empty_lines_after_an_answer_keep_no_connection(url: str) -> None:
    """They end uvicorn's own wait and begin no request: as long as for a head, and no longer."""
    with connect(url) as connection:
        connection.sendall(LIVE)
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        connection.sendall(b"\r\n")
        started = time.monotonic()
        assert read_all(connection) == b""
        assert time.monotonic() - started < 4


def test_a_head_may_come_in_pieces(url: str) -> None:
    """Where it is cut says nothing: what comes second is no method."""
    first = b"GET /v1/styles HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: "
    with connect(url) as connection:
        connection.sendall(first)
        time.sleep(0.2)
        connection.sendall(f"Bearer {KEY}\r\n\r\n".encode())
        assert b" 200 " in read_all(connection).partition(b"\r\n")[0]


def test_a_body_over_the_cap_is_not_read_to_its_end(url: str) -> None:
    """413 while most of it is still to come, however it is sent; then the connection closes."""
    head = ROUTE + HEADERS + KEY_HEADER
    long = head + b"Content-Length: 100000000\r\n\r\n"
    chunks = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * (MAX_BODY_BYTES + 10)
    for raw in (long, chunks):
        status, content = asked(url, raw)
        assert (status, content["code"]) == (413, "body-too-large")


def test_no_byte_of_a_body_is_asked_for_without_the_key(url: str) -> None:
    """`Expect: 100-continue` with a wrong key: 401, and no 100 before it."""
    wrong = b"Authorization: Bearer wrong\r\n"
    raw = ROUTE + HEADERS + wrong + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    with connect(url) as connection:
        connection.sendall(raw)
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_pipelined_requests_are_answered_in_order(url: str) -> None:
    """A hundred in one write: a hundred answers, in turn."""
    lines = [
        f"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Request-Id: n{i}\r\n\r\n" for i in range(100)
    ]
    with connect(url) as connection:
        connection.sendall("".join(lines).encode())
        content = b""
        while content.count(b"HTTP/1.1 200 OK") < 100:
            data = connection.recv(65536)
            assert data, "closed before all were answered"
            content += data
    ids = [
        line.split(b": ")[1] for line in content.split(b"\r\n") if b"x-request-id" in line.lower()
    ]
    assert ids == [f"n{number}".encode() for number in range(100)]


def test_uvicorn_is_as_it_was() -> None:
    """The names that the guard overrides or reads, where a new uvicorn may have moved them."""
    overridden = [name for name in vars(TimeoutHttpProtocol) if name in dir(HttpToolsProtocol)]
    assert set(overridden) >= {
        "connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing",
        "handle_websocket_upgrade", "timeout_keep_alive_handler", "send_400_response", "on_url",
        "on_message_begin", "on_header", "on_headers_complete", "on_message_complete",
        "on_response_complete", "_start_asgi_task",
    }  # fmt: skip
    source = inspect.getsource(HttpToolsProtocol)
    assert "except httptools.HttpParserError:" in source
    assert "self.send_400_response(msg)" in source
    cycle = inspect.getsource(RequestResponseCycle)
    for name in ("response_started", "response_complete", "disconnected", "message_event"):
        assert f"self.{name}" in cycle
