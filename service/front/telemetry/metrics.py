"""The metrics at `/metrics`: counted in the front, or from the engine's heartbeat.

Label values come from fixed sets alone: routes as they are written in the code, known methods, the
codes of our own errors. A caller cannot make a series.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine_client.supervisor import State

if TYPE_CHECKING:
    from prometheus_client import Metric

    from service.engine_client.base import EngineHealth
    from service.protocol.messages import Heartbeat

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})
_HOSTED_PREFIX = "/api/rest/v1"
_CLOSE_CODES = frozenset({1000, 1001, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 4401})

# The name of a metric, the heartbeat's field and what it counts.
_COUNTERS = {
    "refine_engine_unet_calls": ("num_unet_calls", "Forwards of the UNet"),
    "refine_engine_padded_rows": ("num_padded_rows", "Rows that only filled a bucket"),
    "refine_engine_recompiles": ("num_recompiles", "Compiles after the warm-up"),
    "refine_engine_aborted": ("num_aborted", "Jobs dropped because nobody waited any more"),
    "refine_engine_expired": ("num_expired", "Jobs past their deadline"),
    "refine_engine_failed": ("num_failed", "Jobs that failed alone"),
    "refine_engine_fp32_retries": (
        "num_fp32_retries",
        "Rows that overflowed and ran again in fp32",
    ),
    "refine_engine_not_finite": ("num_not_finite", "Rows of NaN, infinity or nothing"),
    "refine_engine_out_of_memory": ("num_out_of_memory", "Times that memory did not suffice"),
}
_GAUGES = {
    "refine_engine_waiting_jobs": ("num_waiting", "Jobs of which no row has a slot"),
    "refine_engine_jobs": ("num_jobs", "Jobs that the engine has, waiting or with rows in slots"),
    "refine_engine_running_rows": ("num_running", "Rows in slots"),
    "refine_engine_max_batch": ("max_batch", "Rows that share a step at most"),
    "refine_engine_step_p99_seconds": ("step_p99_s", "What 99 of 100 steps take"),
    "refine_engine_device_allocated_bytes": ("allocated_bytes", "Device memory of tensors"),
    "refine_engine_device_reserved_bytes": ("reserved_bytes", "Device memory that torch keeps"),
    "refine_engine_python_blocks": ("num_blocks", "Objects that the engine's Python has"),
    "refine_engine_resident_bytes": ("resident_bytes", "Memory of the engine's process"),
}


class Metrics:
    """One registry and what the front counts in it."""

    def __init__(self, health: Callable[[], EngineHealth]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "refine_requests",
            "Requests answered; 499: the caller went",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "refine_request_seconds",
            "From the first byte to the answer",
            ["route"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "refine_stage_seconds",
            "Each stage of a picture",
            ["stage"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self.refused = Counter(
            "refine_refused", "Requests refused, by code", ["code"], registry=self.registry
        )
        self.sockets_open = Gauge(
            "refine_sockets_open", "Sockets of painters who have said hello", registry=self.registry
        )
        self.socket_messages = Counter(
            "refine_socket_messages",
            "Messages to painters; replaced: a newer frame took a waiting one's place",
            ["type"],
            registry=self.registry,
        )
        self.socket_closes = Counter(
            "refine_socket_closes", "Sockets that ended, by code", ["code"], registry=self.registry
        )
        self.loop_lag_seconds = Histogram(
            "refine_loop_lag_seconds",
            "How late the event loop came to a timer",
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self.loop_blocked = Counter(
            "refine_loop_blocked",
            "Times that the event loop stood still for a second",
            registry=self.registry,
        )
        self.loop_tasks = Gauge(
            "refine_loop_tasks",
            "Tasks of the event loop that have not ended",
            registry=self.registry,
        )
        blocks = Gauge("refine_python_blocks", "Objects that Python has", registry=self.registry)
        blocks.set_function(sys.getallocatedblocks)
        build = Gauge("refine_build_info", "This build", ["version"], registry=self.registry)
        build.labels(version("instant-refine")).set(1)
        ProcessCollector(registry=self.registry)
        self.registry.register(EngineCollector(health))

    def count_close(self, code: int) -> None:
        """Count the end of a socket; what code a peer makes up is his own."""
        self.socket_closes.labels(str(code) if code in _CLOSE_CODES else "other").inc()

    def count_stages(self, elapsed_ms: Mapping[str, float]) -> None:
        for stage, milliseconds in elapsed_ms.items():
            self.stage_seconds.labels(stage).observe(milliseconds / 1000)


class EngineCollector(Collector):
    """The engines' own numbers of their last heartbeats; counters begin anew with one."""

    def __init__(self, health: Callable[[], EngineHealth]) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
        health = self._health()
        members = {str(index): member for index, member in enumerate(health.members or (health,))}
        yield _states(members)
        yield _ends(members)
        pending = GaugeMetricFamily("refine_pending_jobs", "Jobs sent to engines")
        pending.add_metric([], health.num_pending)
        yield pending
        beats = {name: member.heartbeat for name, member in members.items() if member.heartbeat}
        for name, (field, text) in _COUNTERS.items():
            yield _filled(CounterMetricFamily(name, text, labels=["engine"]), field, beats)
        for name, (field, text) in _GAUGES.items():
            yield _filled(GaugeMetricFamily(name, text, labels=["engine"]), field, beats)
        yield _batch_sizes(beats)


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, field: str, beats: Mapping[str, Heartbeat]
) -> Metric:
    for name, beat in beats.items():
        family.add_metric([name], getattr(beat, field))
    return family


def _states(members: Mapping[str, EngineHealth]) -> Metric:
    family = GaugeMetricFamily(
        "refine_engine_state", "1 for the state that an engine is in", labels=["engine", "state"]
    )
    for name, member in members.items():
        for state in get_args(State):
            family.add_metric([name, state], member.state == state)
    return family


def _ends(members: Mapping[str, EngineHealth]) -> Metric:
    family = CounterMetricFamily(
        "refine_engine_ends", "Engines that ended unasked", labels=["engine", "reason"]
    )
    for name, member in members.items():
        for reason, count in member.ends.items():
            family.add_metric([name, reason], count)
    return family


def _batch_sizes(beats: Mapping[str, Heartbeat]) -> Metric:
    family = HistogramMetricFamily(
        "refine_engine_batch_rows", "Rows that shared a UNet call", labels=["engine"]
    )
    for name, beat in beats.items():
        total, rows, buckets = 0, 0, []
        for size, count in enumerate(beat.batch_sizes, 1):
            total, rows = total + count, rows + size * count
            buckets.append((str(float(size)), float(total)))
        family.add_metric([name], [*buckets, ("+Inf", float(total))], float(rows))
    return family


class RequestMetrics:
    """ASGI middleware that counts requests and times them by route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            route = getattr(scope.get("route"), "path", "none").removeprefix(_HOSTED_PREFIX)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(time.monotonic() - started)
