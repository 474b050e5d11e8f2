"""A thousand connections that never end their request, beside a caller who does."""

from __future__ import annotations

import selectors
import socket
import statistics
import threading
import time

import httpx
import pytest

from benchmarks.soak.hostile_bodies import GOOD
from tests.hostile.separate import separate

ROUTE = "/lcm-instant-refine"
NUM_PEERS = 1000
BEGINNINGS = [
    b"",
    b"POST /lcm-instant-refine HT",
    b"GET /health/live HTTP/1.1\r\nHost: loc",
    b"POST /lcm-instant-refine HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{",
]


def seconds_of_requests(http: httpx.Client, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        answer = http.post(ROUTE, json={"imageDataUrl": GOOD, "prompt": "a boat"})
        assert answer.status_code == 200
        taken.append(time.perf_counter() - started)
    return taken


class Peers:
    """Connections that send a byte a second of a request that has no end."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._selector = selectors.DefaultSelector()
        self._open: set[socket.socket] = set()
        for number in range(NUM_PEERS):
            peer = socket.create_connection((host, int(port)), timeout=20)
            peer.sendall(BEGINNINGS[number % len(BEGINNINGS)])
            peer.setblocking(False)
            self._selector.register(peer, selectors.EVENT_READ)
            self._open.add(peer)

    def trickle_until_closed(self) -> None:
        next_byte = time.monotonic() + 1
        while self._open:
            for key, _ in self._selector.select(0.1):
                self._read(key.fileobj)  # type: ignore[arg-type]
            if time.monotonic() > next_byte:
                next_byte += 1
                for index, peer in enumerate(list(self._open)):
                    if index % 2:
                        self._send(peer)

    def _read(self, peer: socket.socket) -> None:
        try:
            is_open = bool(peer.recv(4096))
        except OSError:
            is_open = False
        if not is_open:
            self._selector.unregister(peer)
            self._open.discard(peer)
            peer.close()

    @staticmethod
    def _send(peer: socket.socket) -> None:
        try:
            peer.send(b"x")
        except OSError:
            return  # closed; it is read as such


@pytest.mark.slow
@pytest.mark.alone
def test_a_thousand_slow_peers_are_let_go() -> None:
    """All are closed within 30 s, their files are given back, and a good caller is served on."""
    with separate() as server, httpx.Client(base_url=server.url, timeout=60) as http:
        seconds_of_requests(http, 20)
        alone = seconds_of_requests(http, 300)
        files_before, started = server.num_files(), time.monotonic()
        peers = Peers(server.url)
        trickle = threading.Thread(target=peers.trickle_until_closed, daemon=True)
        trickle.start()
        beside: list[float] = []
        while trickle.is_alive() and time.monotonic() - started < 40:
            beside += seconds_of_requests(http, 10)
        closed_s = time.monotonic() - started
        p99 = [1000 * statistics.quantiles(times, n=100)[98] for times in (alone, beside)]
        print(
            f"{NUM_PEERS} slow peers closed in {closed_s:.1f} s; "
            f"good p99 {p99[0]:.1f} ms alone, {p99[1]:.1f} ms beside them"
        )
        assert not trickle.is_alive()
        assert closed_s <= 30
        assert server.num_files() <= files_before + 2
