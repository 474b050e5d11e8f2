"""What is deployed: engines alone behind our own front, or a front as Serve's ingress with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig

from service.cluster.client import APPLICATION, ENGINE, RayEngineClient
from service.cluster.replica import EngineReplica
from service.front.app import create_app
from service.settings import Settings

if TYPE_CHECKING:
    from ray.serve import Application

LOCAL = "local"

_HEALTH_PERIOD_S = 2.0
_STARTS_TRIED = 3
_BATCH_ON_GPU = 8
_NEXT_IN_LINE = 1
"""Requests at a replica beyond its slots, so that a free slot never waits for the network."""


def build(arguments: Mapping[str, str]) -> Application:
    """Return what `serve deploy` deploys: a front as ingress, and engines.

    `arguments` are settings by their names without REFINE_; the rest comes from the environment.
    Raises ValueError for one that is unknown.
    """
    unknown = arguments.keys() - Settings.model_fields.keys()
    if unknown:
        raise ValueError(f"not settings of this service: {', '.join(sorted(unknown))}")
    settings = Settings(**arguments)  # type: ignore[arg-type]  # pydantic reads them from text
    front = serve.deployment(serve.ingress(lambda: build_front(settings))(), name="front")
    return front.bind(engines(settings))


def engines(settings: Settings) -> Application:
    """Return the deployment of the engines, scaled by the requests that are at them."""
    max_batch = settings.max_batch or (_BATCH_ON_GPU if settings.ray_gpus_per_engine else 1)
    num_threads = settings.num_threads or max(1, int(settings.ray_cpus_per_engine))
    engine = settings.engines()[0].model_copy(
        update={"max_batch": max_batch, "num_threads": num_threads}
    )
    deployment = serve.deployment(
        EngineReplica,
        name=ENGINE,
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.ray_min_engines,
            max_replicas=max(settings.ray_min_engines, settings.ray_max_engines),
            target_ongoing_requests=max_batch,
        ),
        max_ongoing_requests=max_batch + _NEXT_IN_LINE,
        max_queued_requests=settings.queue_size,
        health_check_period_s=_HEALTH_PERIOD_S,
        max_constructor_retry_count=_STARTS_TRIED,
        ray_actor_options={
            "num_cpus": settings.ray_cpus_per_engine,
            "num_gpus": settings.ray_gpus_per_engine,
        },
    )
    return deployment.bind(engine.model_dump_json())


def build_front(settings: Settings) -> FastAPI:
    """Return the front as an ASGI application, inside a replica of the ingress."""
    application = serve.get_replica_context().app_name
    return create_app(settings, RayEngineClient(settings.queue_size, application))


def cluster_client(settings: Settings) -> RayEngineClient:
    """Return a client that deploys engines on the cluster that the settings name, and asks them."""

    def deploy() -> None:
        _connect(settings.ray)
        serve.start(proxy_location="Disabled")  # our own front speaks HTTP
        serve.run(engines(settings), name=APPLICATION, route_prefix=None)

    return RayEngineClient(settings.queue_size, deploy=deploy)


def _connect(address: str) -> None:
    if address == LOCAL:
        ray.init(
            LOCAL, include_dashboard=False, configure_logging=False, _node_ip_address="127.0.0.1"
        )
    else:
        ray.init(address, configure_logging=False)
