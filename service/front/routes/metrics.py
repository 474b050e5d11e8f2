"""`GET /metrics` for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from service.front.dependencies import front_of, require_key


def metrics_router(*, is_open: bool) -> APIRouter:
    """Return the route that Prometheus reads; it needs a key unless it is open."""
    metrics_router = APIRouter(dependencies=[] if is_open else [Depends(require_key)])

    @metrics_router.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        """Return all metrics in the text format of Prometheus."""
        content = generate_latest(front_of(request).metrics.registry)
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    return metrics_router
