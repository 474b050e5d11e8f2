"""What Prometheus is told, that nobody can make it grow, and that board and alerts read it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import string
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest
from websockets.exceptions import InvalidStatus

from service.engine_client.base import EngineHealth
from service.front.realtime.session import DENIED
from service.front.telemetry.loop_watchdog import LoopWatchdog
from service.front.telemetry.metrics import Metrics, RequestMetrics
from service.protocol.messages import Heartbeat
from tests.support.api import Api
from tests.support.fakes import READY, FakeEngineClient
from tests.support.servers import KEY, running_server, wait_until
from tests.support.sockets import greeted, opened

DEPLOY = Path(__file__).parents[3] / "deploy"
BEAT = Heartbeat("serving", batch_sizes=[3, 1], num_unet_calls=4)


def serving() -> EngineHealth:
    return EngineHealth("serving", "serving", READY, BEAT, ends={"killed": 1})


@pytest.mark.real_engines
def test_requests_stages_and_refusals_are_counted(api: Api) -> None:
    """A picture and a refusal leave their marks, under the route's own name."""
    assert api.refine("/api/rest/v1/lcm-instant-refine").status_code == 200
    assert api.refine(steps=99).status_code == 400
    text = api.http.get("/metrics").text
    assert re.search(
        r'refine_requests_total\{method="POST",route="/lcm-instant-refine",status="200"\} [1-9]',
        text,
    )
    assert 'refine_refused_total{code="validation-failed"}' in text
    assert 'refine_stage_seconds_bucket{le="0.005",stage="denoise"}' in text
    assert 'refine_engine_state{engine="0",state="serving"} 1.0' in text


def test_sockets_are_counted() -> None:
    """Who is open, what frames became of, and by which codes sockets ended, of a fixed set."""
    engine = FakeEngineClient()
    with running_server(engine, api_keys=KEY) as url, Api(url) as api:
        with greeted(url) as socket:
            held(engine, engine.is_open.clear)
            for number in range(3):
                socket.frame(number, seed=number)
                wait_until(lambda: bool(engine.asked), 20)
            assert socket.hear()["type"] == "replaced"
            assert "refine_sockets_open 1.0" in api.http.get("/metrics").text
            held(engine, engine.is_open.set)
            socket.result(0)
            socket.result(2)
            socket.frame(3, steps=99)
            socket.error("validation-failed", "$.steps", 3)
        with greeted(url) as socket:
            socket.connection.close(4999, "made up")
        with opened(url) as socket:
            socket.tell("hello", key="wrong")
            assert socket.closed() == DENIED
        with pytest.raises(InvalidStatus), opened(url, origin="https://else.example"):
            pass
        wait_until(lambda: "refine_sockets_open 0.0" in api.http.get("/metrics").text, 20)
        wait_until(lambda: 'closes_total{code="4401"}' in api.http.get("/metrics").text, 20)
        told = api.http.get("/metrics").text
    for line in (
        'refine_socket_messages_total{type="ready"} 2.0',
        'refine_socket_messages_total{type="result"} 2.0',
        'refine_socket_messages_total{type="replaced"} 1.0',
        'refine_socket_messages_total{type="error"} 1.0',
        'refine_socket_closes_total{code="1000"} 1.0',
        'refine_socket_closes_total{code="other"} 1.0',
        'refine_socket_closes_total{code="4401"} 1.0',
        'refine_refused_total{code="validation-failed"} 1.0',
    ):
        assert line in told, line
    assert 'code="4999"' not in told


def held(engine: FakeEngineClient, change: Callable[[], None]) -> None:
    """Stop or let go the engine, on its own loop."""
    engine.loop.call_soon_threadsafe(change)
    time.sleep(0.1)


def test_metrics_need_a_key_unless_they_are_open() -> None:
    """As the other routes, but for `REFINE_METRICS_NO_AUTH`."""
    with running_server(api_keys=KEY) as url:
        assert httpx.get(url + "/metrics").status_code == 401
    with running_server(api_keys=KEY, metrics_no_auth=True) as url:
        assert httpx.get(url + "/metrics").status_code == 200


def test_nobody_makes_series() -> None:
    """After 10,000 random paths and methods there are under 2,000 series, told in 50 ms."""
    engine = FakeEngineClient()
    metrics = Metrics(lambda: engine.health)
    rng = random.Random(0)

    async def nothing(_scope: object, _receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": rng.choice([200, 404, 405])})  # type: ignore[operator]

    async def ask() -> None:
        app = RequestMetrics(nothing, metrics)
        for _ in range(10_000):
            word = "".join(rng.choices(string.ascii_letters, k=8))
            scope = {"type": "http", "method": word, "path": f"/{word}"}
            await app(scope, None, _ignore)  # type: ignore[arg-type]

    async def _ignore(_message: object) -> None:
        return None

    asyncio.run(ask())
    elapsed_s = []
    for _ in range(5):
        started = time.perf_counter()
        text = generate_latest(metrics.registry).decode()
        elapsed_s.append(time.perf_counter() - started)
    series = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(series) < 2000
    assert min(elapsed_s) < 0.05


def test_batches_of_the_engine_are_a_histogram() -> None:
    """Three calls of one row and one of two: four in all, five rows."""
    text = generate_latest(Metrics(serving).registry).decode()
    assert 'refine_engine_batch_rows_bucket{engine="0",le="1.0"} 3.0' in text
    assert 'refine_engine_batch_rows_count{engine="0"} 4.0' in text
    assert 'refine_engine_batch_rows_sum{engine="0"} 5.0' in text
    assert 'refine_engine_ends_total{engine="0",reason="killed"} 1.0' in text


@pytest.mark.parametrize("file", ["grafana/instant-refine.json", "prometheus/alerts.yml"])
def test_board_and_alerts_read_what_there_is(file: str) -> None:
    """Each metric that they name is one of the registry's."""
    metrics = Metrics(serving)
    known = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    known |= {f"{family.name}_total" for family in metrics.registry.collect()}
    known |= {
        f"{family.name}_{end}"
        for family in metrics.registry.collect()
        if family.type == "histogram"
        for end in ("bucket", "sum", "count")
    }
    text = (DEPLOY / file).read_text()
    if file.endswith("json"):
        text = " ".join(
            target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]
        )
        for name in ("sockets_open", "socket_messages_total", "socket_closes_total"):
            assert f"refine_{name}" in text
    named = set(re.findall(r"\b(?:refine|process)_[a-z0-9_]+", text))
    assert len(named) >= 5
    assert named <= known


def test_the_tasks_of_the_loop_are_told() -> None:
    """A task counts until it has ended, and so do the watch's own and the asking one."""
    metrics = Metrics(serving)

    def told() -> float | None:
        return metrics.registry.get_sample_value("refine_loop_tasks")

    async def scenario() -> None:
        watchdog = LoopWatchdog(metrics)
        watchdog.start()
        leaked = [asyncio.create_task(asyncio.sleep(60)) for _ in range(3)]
        assert told() == 5
        for task in leaked:
            task.cancel()
        await asyncio.wait(leaked)
        assert told() == 2
        watchdog.stop()

    asyncio.run(scenario())


def test_a_blocked_loop_is_counted_and_its_stack_is_known() -> None:
    """While the loop stands still another thread says where."""
    metrics = Metrics(serving)

    async def scenario() -> None:
        watchdog = LoopWatchdog(metrics, blocked_s=0.2)
        watchdog.start()
        await asyncio.sleep(0.1)
        time.sleep(1.0)  # noqa: ASYNC251 - the fault that is shown
        await asyncio.sleep(0.2)
        watchdog.stop()
        assert any("test_metrics.py" in line for line in watchdog.last_stack)

    asyncio.run(scenario())
    assert metrics.registry.get_sample_value("refine_loop_blocked_total") == 1
