"""What is deployed: engines alone behind our own front, or a front as Serve's ingress with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig

from service.front.app import create_app
from service.ray_serve import LOCAL
from service.ray_serve.client import RayEngineClient
from service.ray_serve.handles import APPLICATION, ENGINE, ServeEngines
from service.ray_serve.replica import EngineReplica
from service.settings import Settings

if TYPE_CHECKING:
    from ray.serve import Application

_HEALTH_PERIOD_S = 2.0
_STARTS_TRIED = 3
_MAX_BATCH = 8
_NEXT_IN_LINE = 1
"""Requests at a replica beyond its slots, so that a free slot never waits for the network."""

_OF_SERVE = {"host", "port", "ray"}
"""Settings that Serve decides in the place of ours: its proxies listen, on its cluster."""

_REFUSED_AT_ONCE = 256
"""Requests at a front beyond those that it lets in, so that it refuses them itself, by code."""


def build(arguments: Mapping[str, str]) -> Application:
    """Return what `serve deploy` deploys: a front as ingress, and engines.

    `arguments` are settings by their names without REFINE_; the rest comes from the environment
    of the process that reads them. Raises ValueError for one that means nothing here.
    """
    given: dict[str, Any] = dict(arguments)  # pydantic reads them from text
    unknown = given.keys() - (Settings.model_fields.keys() - _OF_SERVE)
    if unknown:
        raise ValueError(f"not settings of this application: {', '.join(sorted(unknown))}")
    settings = Settings(**given)
    front = serve.deployment(
        serve.ingress(lambda: build_front(given))(),
        name="front",
        max_ongoing_requests=at_a_front(settings),
        graceful_shutdown_timeout_s=settings.drain_timeout_s,
    )
    return front.bind(engines(settings))


def at_a_front(settings: Settings) -> int:
    """Return how many requests may be at a front: all that it lets in, and some to refuse.

    A socket is a request for as long as it is open. Serve's own default is five.
    """
    slots = max_engines(settings) * max_batch(settings)
    return slots + settings.queue_size + settings.max_sockets + _REFUSED_AT_ONCE


def engines(settings: Settings) -> Application:
    """Return the deployment of the engines, scaled by the requests that are at them or wait.

    Raises ValueError for several devices: on a cluster Ray gives each engine its own.
    """
    if len(settings.devices()) > 1:
        raise ValueError("engines on Ray have a device each: name one, and REFINE_RAY_MAX_ENGINES")
    slots = max_batch(settings)
    engine = settings.engines()[0].model_copy(
        update={"max_batch": slots, "num_threads": num_threads(settings)}
    )
    deployment = serve.deployment(
        EngineReplica,
        name=ENGINE,
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.ray_min_engines,
            max_replicas=max_engines(settings),
            target_ongoing_requests=slots,
        ),
        max_ongoing_requests=slots + _NEXT_IN_LINE,
        max_queued_requests=settings.queue_size,
        health_check_period_s=_HEALTH_PERIOD_S,
        max_constructor_retry_count=_STARTS_TRIED,
        graceful_shutdown_timeout_s=settings.drain_timeout_s,
        ray_actor_options={
            "num_cpus": settings.ray_cpus_per_engine,
            "num_gpus": settings.ray_gpus_per_engine,
        },
    )
    return deployment.bind(engine.model_dump_json())


def max_batch(settings: Settings) -> int:
    """Return the slots of an engine; what it would choose by itself is not known here yet."""
    on_cpu = min(_MAX_BATCH, num_threads(settings))
    return settings.max_batch or (_MAX_BATCH if settings.ray_gpus_per_engine else on_cpu)


def num_threads(settings: Settings) -> int:
    return settings.num_threads or max(1, int(settings.ray_cpus_per_engine))


def max_engines(settings: Settings) -> int:
    return max(settings.ray_min_engines, settings.ray_max_engines)


def build_front(arguments: dict[str, Any]) -> FastAPI:
    """Return the front as an ASGI application, inside a replica of the ingress.

    The environment is that of the replica's node, so that keys are not part of what is deployed.
    Raises ValueError without any: which addresses Serve listens on is not known here.
    """
    settings = Settings(**arguments)
    if not (settings.needs_key or settings.insecure_no_auth):
        raise ValueError(
            "set REFINE_API_KEYS or REFINE_KEYS_FILE where the front runs; "
            "REFINE_INSECURE_NO_AUTH serves everybody"
        )
    application = serve.get_replica_context().app_name
    return create_app(settings, RayEngineClient(settings, lambda: ServeEngines(application)))


def cluster_client(settings: Settings) -> RayEngineClient:
    """Return a client that deploys engines on the cluster that the settings name, and asks them."""

    def deploy() -> ServeEngines:
        _connect(settings.ray)
        serve.start(proxy_location="Disabled")  # our own front speaks HTTP
        serve.run_many(
            [serve.RunTarget(engines(settings), name=APPLICATION, route_prefix=None)],
            wait_for_ingress_deployment_creation=True,
            wait_for_applications_running=False,  # the client looks, and can be stopped meanwhile
        )
        return ServeEngines()

    return RayEngineClient(settings, deploy)


def _connect(address: str) -> None:
    local = {"include_dashboard": False} if address == LOCAL else {}
    ray.init(address, configure_logging=False, **local)
