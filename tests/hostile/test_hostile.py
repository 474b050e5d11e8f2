"""Hostile files and bodies against a server of its own: no 5xx, no death, bounded memory and time.

Fixed ones by name, and ten thousand damaged ones. A good request among them always works.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from benchmarks.soak.golden_files import GOLDEN, WHOLE
from benchmarks.soak.hostile_bodies import GOOD, bodies, files, texts
from service.front.images.data_url import to_data_url
from tests.front.images.test_containers import mutated, with_right_checksums
from tests.hostile.separate import Separate, separate

ROUTE = "/lcm-instant-refine"
MOST_EXTRA_MB = 300
MOST_CPU_S = 0.7
NUM_MUTATED = 10_000


@pytest.fixture(scope="module")
def server() -> Iterator[Separate]:
    with separate() as server:
        yield server


@pytest.fixture(scope="module")
def http(server: Separate) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for _ in range(8):
            assert ask(http, GOOD).status_code == 200
        yield http


def ask(http: httpx.Client, url: str, prompt: str = "a boat") -> httpx.Response:
    return post(http, json.dumps({"imageDataUrl": url, "prompt": prompt, "seed": 1}).encode())


def post(http: httpx.Client, body: bytes) -> httpx.Response:
    return http.post(ROUTE, content=body, headers={"content-type": "application/json"})


def test_the_fixed_corpus(server: Separate, http: httpx.Client) -> None:
    """At least 120 cases: 200 or a told 4xx each, at most 0.7 CPU seconds and 300 MB more."""
    cases = {
        **{f"file {name}": to_request(to_data_url(data, "png")) for name, data in files().items()},
        **{f"text {name}": to_request(text) for name, text in texts().items()},
        **{f"body {name}": body for name, body in bodies().items()},
    }
    assert len(cases) >= 120
    before_mb, costs = server.peak_mb(), {}
    for name, body in cases.items():
        began_s = server.cpu_s()
        answer = post(http, body)
        costs[name] = server.cpu_s() - began_s
        assert answer.status_code in (200, 400, 413), name
        if answer.status_code != 200:
            check_refusal(answer)
        assert not name.startswith("body") or answer.status_code == 400 or "zalgo" in name
        assert ask(http, GOOD).status_code == 200, name
    worst = max(costs, key=lambda name: costs[name])
    extra_mb = server.peak_mb() - before_mb
    tell(f"{len(cases)} fixed cases: {costs[worst]:.2f} CPU s ({worst}), {extra_mb:.0f} MB more")
    assert costs[worst] <= MOST_CPU_S
    assert extra_mb <= MOST_EXTRA_MB


def to_request(text: str) -> bytes:
    return json.dumps({"imageDataUrl": text, "prompt": "a boat"}).encode()


def check_refusal(answer: httpx.Response) -> None:
    assert answer.json().keys() == {"error", "path", "code"}
    assert len(answer.content) < 2000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_damaged_pictures(server: Separate, http: httpx.Client) -> None:
    """Each is decoded or refused, within the same bounds; every hundredth is a good one."""
    rng = random.Random(20)
    seeds = [*WHOLE.values(), *(data for data, _ in GOLDEN.values())]
    before_mb, worst_s, statuses = server.peak_mb(), 0.0, Counter[int]()
    for number in range(NUM_MUTATED):
        data = mutated(rng.choice(seeds), rng)
        data = with_right_checksums(data) if rng.random() < 0.5 else data
        began_s = server.cpu_s()
        answer = ask(http, to_data_url(data, "png"))
        worst_s = max(worst_s, server.cpu_s() - began_s)
        statuses[answer.status_code] += 1
        if number % 100 == 0:
            assert ask(http, GOOD).status_code == 200
    extra_mb = server.peak_mb() - before_mb
    tell(f"{NUM_MUTATED} damaged: {dict(statuses)}, {worst_s:.2f} CPU s, {extra_mb:.0f} MB more")
    assert statuses.keys() <= {200, 400, 413}
    assert worst_s <= MOST_CPU_S
    assert extra_mb <= MOST_EXTRA_MB


def tell(line: str) -> None:
    print(line)
