"""`GET /health/live` and `GET /health/ready`."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.engine_client.base import EngineHealth
from service.front.dependencies import front_of
from service.front.health import health_of
from service.front.http.errors import json_response

router = APIRouter()

_RETRY_AFTER_S = "5"


@router.get("/health/live")
async def live(request: Request) -> Response:
    """Return 200 while the front answers and its engines do not end over and over.

    503 when they do: restart the service. `/health/ready` says whether it can make pictures now.
    """
    is_live = not front_of(request).client.health.is_crash_looping
    return json_response(json.dumps({"live": is_live}).encode(), 200 if is_live else 503)


@router.get("/health/ready", responses={503: {"description": "Not ready, and why"}})
async def ready(request: Request) -> Response:
    """Return whether a picture can be made now, and if not, why not."""
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
