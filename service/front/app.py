"""The front's application: its routes under both prefixes, and the engine's life around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from service.client import EngineClient
from service.front import api, info, realtime, styles
from service.front.access import AccessLog
from service.front.answers import UnforeseenErrors, install_error_handlers
from service.front.cors import Cors
from service.front.front import Front, check_key_of_route
from service.front.hosts import HostGuard
from service.front.metrics import RequestMetrics
from service.front.page import page_router
from service.front.watchdog import LoopWatchdog
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
    app.include_router(api.router)
    app.include_router(api.router, prefix=HOSTED_PREFIX, include_in_schema=False)
    app.include_router(info.router)
    app.include_router(styles.router)
    app.include_router(info.metrics_router(is_open=settings.open_metrics))
    app.include_router(realtime.router)
    app.include_router(page_router())
    app.add_middleware(HostGuard, allowed=settings.hosts(), is_open=front.keys.is_open)
    app.add_middleware(UnforeseenErrors)
    if settings.origins():
        app.add_middleware(Cors, origins=settings.origins())
    app.add_middleware(RequestMetrics, metrics=front.metrics)
    app.add_middleware(AccessLog)  # outermost: the last one added
    install_error_handlers(app, check_key_of_route)
    return app
