"""Who asks: keys of the environment and of a file, and floods of wrong ones."""

from __future__ import annotations

import os
import random
import statistics
import time
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from service.api_keys import KeyFileError, KeyRecord, Limits, Rate, digest_of, write_keys
from service.errors import AccessDenied, RateLimited
from service.front.access_control.keyring import ANYBODY, KeyRing, is_loopback
from service.front.access_control.token_bucket import FailedAuthLimiter, TokenBucket


class Clock:
    """Time that passes when a test says so, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def write(file: Path, **keys: str) -> None:
    """Replace the file; a key may be followed by a space and its limits."""
    pairs = ((key_id, *key.split(" ")) for key_id, key in keys.items())
    write_keys(file, [KeyRecord(key_id, digest_of(key), *rest) for key_id, key, *rest in pairs])


def knows(ring: KeyRing, key: str) -> bool:
    try:
        return bool(ring.identify(key))
    except AccessDenied:
        return False


def test_an_open_ring_takes_everybody() -> None:
    """Without keys all are one caller without limits; without a line in the file nobody is."""
    assert KeyRing().identify("whatever") is ANYBODY
    assert ANYBODY.limits == Limits()


def test_an_empty_file_lets_nobody_in(file: Path) -> None:
    """When the last line goes, the service is closed, not open."""
    write(file)
    ring = KeyRing(file=file)
    assert not ring.is_open
    assert not knows(ring, "")


def test_a_caller_has_an_id_and_limits(file: Path) -> None:
    """Keys of the environment are counted, those of the file have names; limits are laid over."""
    write(file, app="one rate=5/s")
    ring = KeyRing(["two", "three"], file, Limits(concurrent=16))
    assert ring.identify("one").id == "app"
    assert ring.identify("one").limits == Limits(16, Rate(5, 1.0))
    assert [ring.identify(key).id for key in ("two", "three")] == ["key-1", "key-2"]
    assert ring.identify("two").limits == Limits(concurrent=16)
    assert not knows(ring, "four")
    assert "digest" not in repr(ring.identify("one"))


@pytest.mark.parametrize(
    ("header", "is_taken"),
    [
        ("Bearer one", True), ("bearer one", True), ("BEARER  one ", True), ("Basic one", False),
        ("one", False), ("", False), ("Bearer", False), ("Bearer ", False), ("Bearer é", False),
        ("Bearer " + "x" * 1_000_000, False), ("Bearer one one", False), ("Bearer\tone", False),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_header_is_a_scheme_and_a_key(header: str, *, is_taken: bool) -> None:
    """Whatever else stands there is denied, and never an error of ours."""
    ring = KeyRing(["one"])
    headers = Headers(raw=[(b"authorization", header.encode())])
    if is_taken:
        assert ring.authenticate(headers).id == "key-1"
    else:
        with pytest.raises(AccessDenied):
            ring.authenticate(headers)
    with pytest.raises(AccessDenied):
        ring.authenticate(Headers(raw=[*headers.raw, *headers.raw]))


def test_a_changed_file_holds_within_a_second(file: Path) -> None:
    """Old and new both while both stand there; then the old one ends, for what it opened too."""
    clock = Clock()
    write(file, old="one")
    ring = KeyRing(file=file, clock=clock)
    caller = ring.identify("one")
    write(file, old="one", new="two")
    clock.now += 1
    assert knows(ring, "one")
    assert knows(ring, "two")
    write(file, new="two")
    clock.now += 1
    assert not ring.still_holds(caller)
    assert not knows(ring, "one")
    assert knows(ring, "two")


def test_the_file_is_looked_at_once_a_second_or_when_told(file: Path) -> None:
    """A thousand requests cost one look; a signal need not wait for it."""
    clock = Clock()
    write(file, a="one")
    ring = KeyRing(file=file, clock=clock)
    write(file, b="two")
    assert knows(ring, "one")
    ring.reload()
    assert not knows(ring, "one")


@pytest.mark.parametrize("fault", ["gone", "open", "broken"])
def test_a_file_that_breaks_leaves_the_keys_as_they_were(file: Path, fault: str) -> None:
    """A slip of the editor locks nobody out; it is refused at the start, when somebody looks."""
    clock = Clock()
    write(file, a="one")
    ring = KeyRing(file=file, clock=clock)
    if fault == "gone":
        file.unlink()
    elif fault == "open":
        file.chmod(0o644)
    else:
        file.write_text("what is this\n")
    clock.now += 1
    assert knows(ring, "one")
    with pytest.raises(KeyFileError):
        KeyRing(file=file)
    write(file, b="two")
    clock.now += 1
    assert knows(ring, "two")
    assert not knows(ring, "one")


def test_a_flood_of_wrong_keys_is_held_off() -> None:
    """401, then 429 with the seconds to wait; a right key from there is taken all the same."""
    clock = Clock()
    ring = KeyRing(["one"], clock=clock)
    outcomes = []
    for number in range(100):
        with pytest.raises((AccessDenied, RateLimited)) as raised:
            ring.identify(f"wrong-{number}", peer="10.0.0.1")
        outcomes.append(raised.value.code)
    assert outcomes == ["access-denied"] * 60 + ["rate-limited"] * 40
    assert raised.value.retry_after_s == 1
    assert ring.identify("one", peer="10.0.0.1").id == "key-1"
    with pytest.raises(AccessDenied):
        ring.identify("wrong", peer="10.0.0.2")
    with pytest.raises(AccessDenied):
        ring.identify("", peer="10.0.0.1")
    clock.now += 1
    with pytest.raises(AccessDenied):
        ring.identify("wrong", peer="10.0.0.1")


def test_peers_are_forgotten_in_the_end() -> None:
    """However many addresses a flood comes from, memory is bounded."""
    gate = FailedAuthLimiter(Clock())
    for number in range(10_000):
        gate.count(str(number))
    assert len(gate) == 4096


def test_a_wrong_key_is_cheap() -> None:
    """Under 0.2 ms of CPU with 16 keys, in the best of five rounds."""
    ring = KeyRing([str(number) for number in range(16)])

    def round_s() -> float:
        started = time.process_time()
        for number in range(200):
            with pytest.raises((AccessDenied, RateLimited)):
                ring.identify(f"wrong-{number}", peer="10.0.0.1")
        return (time.process_time() - started) / 200

    assert min(round_s() for _ in range(5)) < 0.0002


@pytest.mark.slow
@pytest.mark.alone
def test_a_right_beginning_takes_no_longer() -> None:
    """The medians of keys that begin right and wrong lie within their own noise."""
    key = "k" * 43
    ring = KeyRing([key])
    near, far = key[:-1] + "x", "x" + key[1:]
    times: dict[str, list[int]] = {near: [], far: []}
    for presented in random.Random(0).sample([near, far] * 10_000, 20_000):
        started = time.perf_counter_ns()
        try:
            ring.identify(presented)
        except (AccessDenied, RateLimited):
            times[presented].append(time.perf_counter_ns() - started)
    medians = [statistics.median(values) for values in times.values()]
    quartiles = statistics.quantiles(times[near], n=4)
    assert abs(medians[0] - medians[1]) < max(500, quartiles[2] - quartiles[0])


def test_tokens_never_exceed_their_rate() -> None:
    """Over random moments: at most the burst and what flowed in since, and the wait is honest."""
    rng = random.Random(1)
    for _ in range(50):
        rate = Rate(rng.randint(1, 20), rng.choice([1.0, 60.0]))
        now, taken = 0.0, 0
        bucket = TokenBucket(rate, now)
        for _ in range(300):
            now += rng.choice([0, rng.random(), 5 * rng.random()])
            wait_s = bucket.take(now)
            taken += wait_s == 0
            assert taken <= rate.count + now * rate.count / rate.period_s + 0.001
            if wait_s and rng.random() < 0.2:
                now += wait_s
                assert bucket.take(now) == 0
                taken += 1


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("[::1]", True), ("127.9.9.9", True),
     ("192.0.2.1", False), ("::", False), ("", False), ("example.com", False), ("10.0.0.1", False)],
)  # fmt: skip
def test_loopback_is_this_machine_alone(host: str, *, is_local: bool) -> None:
    """Every interface and every name but one is reachable from elsewhere."""
    assert is_loopback(host) == is_local


def test_the_file_may_be_touched_without_change(file: Path) -> None:
    """A new time alone reads it again and changes nothing."""
    clock = Clock()
    write(file, a="one")
    ring = KeyRing(file=file, clock=clock)
    os.utime(file, (1, 1))
    clock.now += 1
    assert knows(ring, "one")
