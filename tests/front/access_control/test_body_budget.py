"""How much of bodies is held at once, by itself and over the wire."""

from __future__ import annotations

import random
import socket
from collections import Counter
from contextlib import ExitStack

import pytest
from pydantic import SecretStr

from service.errors import QueueFull, RateLimited
from service.front.access_control.body_budget import BodyBudget, BudgetedBody
from service.front.app import create_app
from service.settings import Settings
from tests.support.api import ROUTES, Api
from tests.support.fakes import FakeEngineClient
from tests.support.servers import running_app, wait_until

MEGABYTE = 1 << 20


@pytest.mark.parametrize("seed", range(20))
def test_bodies_hold_their_bounds(seed: int) -> None:
    """Random bodies of random callers: never more than in all or of one; all comes back."""
    rng = random.Random(seed)
    bodies = BodyBudget(most_bytes=1000, largest_bytes=300)
    held: list[tuple[str, BudgetedBody]] = []
    refusals = Counter[type]()
    for _ in range(500):
        if rng.random() < 0.3 or not held:
            caller = rng.choice(["", "a", "b"])
            held.append((caller, bodies.hold(caller)))
        elif rng.random() < 0.2:
            _, body = held.pop(rng.randrange(len(held)))
            content = body.take()
            assert set(content) <= {7}
            body.release()
            body.release()
        else:
            try:
                rng.choice(held)[1].append(b"\7" * rng.randrange(60))
            except (QueueFull, RateLimited) as refusal:
                refusals[type(refusal)] += 1
        of_each: Counter[str] = Counter()
        for caller, body in held:
            of_each[caller] += len(body)
        assert bodies.num_bytes == of_each.total() <= 1000
        assert max(of_each["a"], of_each["b"]) <= 500
    assert refusals
    for _, body in held:
        body.release()
    assert bodies.num_bytes == 0


def test_one_key_s_bodies_leave_room_for_another_s() -> None:
    """Half of it held by one key: 429 for its next body, and 200 for the other key.

    They are given back when their senders go, and when their pictures are decoded.
    """
    engine = FakeEngineClient()
    settings = Settings(
        api_keys=SecretStr("greedy,other"),
        body_budget_bytes=8 * MEGABYTE,
        max_body_bytes=4 * MEGABYTE,
    )
    app = create_app(settings, engine)
    bodies: BodyBudget = app.state.front.bodies
    with (
        running_app(app) as (url, _),
        Api(url, "greedy") as greedy,
        Api(url, "other") as other,
    ):
        with ExitStack() as stack:
            for _ in range(4):
                begin_body(stack, url, MEGABYTE - 4096)
            wait_until(lambda: bodies.num_bytes == 4 * (MEGABYTE - 4096), 20)
            greedy.refused(greedy.refine(prompt="x" * 20_000), 429, "rate-limited")
            for _ in range(3):
                assert other.refine(ROUTES[1]).status_code == 200
        wait_until(lambda: bodies.num_bytes == 0, 20)
        assert greedy.refine().status_code == 200
        for _ in range(20):
            large = {"imageDataUrl": "A" * 3 * MEGABYTE}
            other.refused(other.refine(**large), 400, "image-invalid", "$.imageDataUrl")


def begin_body(stack: ExitStack, url: str, num_bytes: int) -> None:
    """Send so much of a body that goes on for ever."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
    head = f"POST {ROUTES[0]} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer greedy\r\nContent-Length: {2 * MEGABYTE}\r\n\r\n"
    connection.sendall(head.encode() + b" " * num_bytes)
