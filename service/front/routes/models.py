"""What the service says of itself: checkpoints, numbers, health."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request

from models.checkpoints.catalog import Checkpoint
from service.engine_client.base import EngineHealth
from service.front.dependencies import front_of, require_key
from service.front.generation import ROUTES, Route
from service.front.schemas.requests import DEFAULT_REFINE_STRENGTH, UpscaleRequest, upscale_strength
from service.front.schemas.responses import KEY_REFUSALS
from service.front.state import Front

router = APIRouter()


@router.get("/v1/models", dependencies=[Depends(require_key)], responses=KEY_REFUSALS)
async def models(request: Request) -> dict[str, Any]:
    """List the checkpoints that are known, and which one is loaded where."""
    front = front_of(request)
    known = front.served.known.values()
    return {"models": [_describe(checkpoint, front) for checkpoint in known]}


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
