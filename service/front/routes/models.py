"""What the service says of itself: checkpoints, numbers, health."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from models.catalog import Checkpoint
from service.client import EngineHealth
from service.front.answers import json_response
from service.front.front import Front, front_of, require_key
from service.front.health import health_of
from service.front.refining import ROUTES, Route
from service.front.schemas import (
    DEFAULT_REFINE_STRENGTH,
    KEY_REFUSALS,
    UpscaleRequest,
    upscale_strength,
)

router = APIRouter()

_RETRY_AFTER_S = "5"


@router.get("/v1/models", dependencies=[Depends(require_key)], responses=KEY_REFUSALS)
async def models(request: Request) -> dict[str, Any]:
    """List the checkpoints that are known, and which one is loaded where."""
    front = front_of(request)
    known = front.served.known.values()
    return {"models": [_describe(checkpoint, front) for checkpoint in known]}


def metrics_router(*, is_open: bool) -> APIRouter:
    """Return the route that Prometheus reads; it needs a key unless it is open."""
    metrics_router = APIRouter(dependencies=[] if is_open else [Depends(require_key)])

    @metrics_router.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        """Tell Prometheus what was counted."""
        content = generate_latest(front_of(request).metrics.registry)
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    return metrics_router


@router.get("/health/live")
async def live(request: Request) -> Response:
    """Tell that the front answers, and that starting engines anew helps where they end.

    503 when they end over and over: whoever started the service should start it anew. Whether
    pictures can be made now is for `/health/ready`.
    """
    is_live = not front_of(request).client.health.is_crash_looping
    return json_response(json.dumps({"live": is_live}).encode(), 200 if is_live else 503)


@router.get("/health/ready", responses={503: {"description": "Not ready, and why"}})
async def ready(request: Request) -> Response:
    """Tell whether a picture can be made now, and if not, why not."""
    front = front_of(request)
    health = health_of(front)
    engine = front.client.health
    engines = [_engine(member) for member in engine.members or (engine,)]
    content = json.dumps({**health.to_content(), "engines": engines}).encode()
    if health.ready:
        return json_response(content)
    return json_response(content, 503, {"Retry-After": _RETRY_AFTER_S})


def _engine(health: EngineHealth) -> dict[str, Any]:
    beat = health.heartbeat
    return {
        "state": health.state,
        "phase": health.phase,
        "device": health.ready.device if health.ready else None,
        "pending": health.num_pending,
        "warm": {"done": beat.num_warm, "of": beat.num_targets} if beat else None,
    }


def default_fields(checkpoint: Checkpoint, route: Route) -> dict[str, Any]:
    """Return what a request to a route gets that leaves the fields out, in the wire's words."""
    defaults = checkpoint.defaults_of(route.pace)
    fields = {
        "steps": defaults.num_inference_steps,
        "strength": defaults.strength,
        "guidance": defaults.guidance_scale,
        "autoencoder": defaults.autoencoder,
    }
    if route.request is UpscaleRequest:
        fields["strength"] = upscale_strength(None, is_creative=None)
        fields |= {"refineStrength": DEFAULT_REFINE_STRENGTH, "refineCreative": False}
    return fields


def _describe(checkpoint: Checkpoint, front: Front) -> dict[str, Any]:
    ready = front.client.health.ready
    is_loaded = ready is not None and checkpoint.name in front.served.checkpoints
    return {
        "id": checkpoint.name,
        "title": checkpoint.title,
        "licence": checkpoint.licence,
        "guidanceTrained": checkpoint.guidance_trained,
        "defaults": {
            f"/{name}": default_fields(checkpoint, route) for name, route in ROUTES.items()
        },
        "loaded": is_loaded,
        "device": ready.device if ready and is_loaded else None,
        "dtype": ready.dtype if ready and is_loaded else None,
        "maxBatch": ready.max_batch if ready and is_loaded else None,
        "warm": _warm(front.client.health, checkpoint.name) if is_loaded else {},
    }


def _warm(health: EngineHealth, name: str) -> dict[str, list[int]]:
    """Return by shape the numbers of rows that are compiled in all engines that serve."""
    beats = [one.heartbeat for one in health.members or (health,) if one.state == "serving"]
    each = [beat.warm.get(name, {}) if beat else {} for beat in beats]
    first, *others = each or [{}]
    common = {
        shape: [number for number in rows if all(number in one.get(shape, []) for one in others)]
        for shape, rows in first.items()
    }
    return {shape: rows for shape, rows in common.items() if rows}
