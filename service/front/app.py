"""The front's application: its routes under both prefixes, and the engine's life around it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from service.engine_client.base import EngineClient
from service.front.dependencies import check_key_of_route
from service.front.http.cors import Cors
from service.front.http.errors import UnforeseenErrors, install_error_handlers
from service.front.http.hosts import HostAllowlist
from service.front.http.observer import AccessLog
from service.front.realtime import endpoint
from service.front.realtime.pacing import FramePacer
from service.front.routes import health, models, refine, styles, tickets
from service.front.routes.metrics import metrics_router
from service.front.routes.page import page_router
from service.front.state import Front
from service.front.telemetry.loop_watchdog import LoopWatchdog
from service.front.telemetry.metrics import RequestMetrics
from service.settings import Settings

HOSTED_PREFIX = "/api/rest/v1"
"""Where the hosted API has its routes; the SDKs append theirs to whatever address they get."""


def create_app(settings: Settings, client: EngineClient) -> FastAPI:
    """Return the application. Its engine starts and ends with it."""
    front = Front(settings, client)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        watchdog = LoopWatchdog(front.metrics)
        watchdog.start()
        await client.start()
        yield
        await client.stop()
        watchdog.stop()
        front.close()

    app = FastAPIOffline(
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be built from the caller's Host header
        title="Instant refine",
        summary="Refines pictures in real time with a latent consistency model.",
        version=version("instant-refine"),
        lifespan=lifespan,
    )
    app.state.front = front
    app.state.pacers = defaultdict(FramePacer)  # by route, over all sockets
    app.include_router(refine.router)
    app.include_router(refine.router, prefix=HOSTED_PREFIX, include_in_schema=False)
    app.include_router(models.router)
    app.include_router(health.router)
    app.include_router(styles.router)
    app.include_router(metrics_router(is_open=settings.metrics_no_auth))
    app.include_router(tickets.router)
    app.include_router(endpoint.router)
    app.include_router(page_router())
    app.add_middleware(HostAllowlist, allowed=settings.hosts(), is_open=front.keys.is_open)
    app.add_middleware(UnforeseenErrors)
    if settings.origins():
        app.add_middleware(Cors, origins=settings.origins())
    app.add_middleware(RequestMetrics, metrics=front.metrics)
    app.add_middleware(AccessLog)  # outermost: the last one added
    install_error_handlers(app, check_key_of_route)
    return app
