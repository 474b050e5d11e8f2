"""The img2img routes over HTTP: a body to a request, and what came of it to an answer."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from service.errors import BadRequest, DeadlineExceeded
from service.front.access_control.body_budget import BudgetedBody
from service.front.dependencies import caller_of, front_of, require_key
from service.front.generation import ROUTES, DecodedRequest, GenerationResult, Route, read, refine
from service.front.http.body import read_json_body, unless_disconnected
from service.front.http.errors import json_response
from service.front.images.data_url import to_data_url
from service.front.schemas.parsing import parse_body
from service.front.schemas.requests import InpaintRequest, RefineRequest, UpscaleRequest
from service.front.schemas.responses import REFUSALS, RefineResponse
from service.front.state import Front, name_of

_TIMEOUT_HEADER = "x-request-timeout-ms"
_EXAMPLE_PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AA"
    "AAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


def _request_body(model: type[RefineRequest]) -> dict[str, Any]:
    """Document the body, which is read by hand: under a cap, and strictly."""
    example = {
        "imageDataUrl": _EXAMPLE_PICTURE,
        "prompt": "a red heart on a plain white background",
        "style": "RENDER_3D",
        "steps": 4,
        "strength": 0.6,
        "seed": 7,
    }
    if issubclass(model, InpaintRequest):
        example["maskDataUrl"] = _EXAMPLE_PICTURE
    schema = model.model_json_schema()
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


router = APIRouter(
    dependencies=[Depends(require_key)],
    responses={200: {"model": RefineResponse}, **REFUSALS},
    default_response_class=Response,
)


@router.post("/lcm-instant-refine", openapi_extra=_request_body(RefineRequest))
async def lcm_instant_refine(request: Request) -> Response:
    """Refine a picture by img2img: the main job."""
    return await _answer(request, ROUTES["lcm-instant-refine"])


@router.post("/generations-lcm", openapi_extra=_request_body(RefineRequest))
async def generations_lcm(request: Request) -> Response:
    """Refine a doodle while it is drawn: the live-canvas pass, tuned for latency."""
    return await _answer(request, ROUTES["generations-lcm"])


@router.post("/lcm-inpainting", openapi_extra=_request_body(InpaintRequest))
async def lcm_inpainting(request: Request) -> Response:
    """Repaint the white area of a mask; the black area stays as it was, to the pixel."""
    return await _answer(request, ROUTES["lcm-inpainting"])


@router.post("/lcm-upscale", openapi_extra=_request_body(UpscaleRequest))
async def lcm_upscale(request: Request) -> Response:
    """Enlarge a picture to twice `width` x `height`, with detail added tile by tile."""
    return await _answer(request, ROUTES["lcm-upscale"])


async def _answer(request: Request, route: Route) -> Response:
    """Answer within the deadline, or give the engine's slots back and say so."""
    front = front_of(request)
    deadline_s = _shortened(request, route.deadline_s(front.settings))
    caller = name_of(caller_of(request))
    try:
        with (
            front.quotas.request(caller_of(request)),
            front.active_request(caller, deadline_s),
            front.bodies.hold(caller) as body,
        ):
            async with asyncio.timeout(deadline_s) as deadline:
                await read_json_body(request, body, front.settings.max_body_bytes)
                work = _refined(front, route, body, deadline, caller)
                return await unless_disconnected(request, work)
    except TimeoutError:
        raise DeadlineExceeded("the picture was not ready within the deadline") from None


def _shortened(request: Request, deadline_s: float) -> float:
    given = request.headers.get(_TIMEOUT_HEADER)
    if given is None:
        return deadline_s
    if not (given.isascii() and given.isdecimal() and int(given[:9]) > 0):
        raise BadRequest("X-Request-Timeout-Ms must be a positive number of milliseconds")
    return min(deadline_s, int(given[:9]) / 1000)


async def _refined(
    front: Front, route: Route, body: BudgetedBody, deadline: asyncio.Timeout, caller: str
) -> Response:
    async def decode() -> DecodedRequest:
        with body:  # no longer: a picture may wait for long, and its pixels suffice
            return await front.decode(partial(_read, body.take(), route.request), caller)

    refined = await refine(front, decode, deadline, route.pace, caller)
    with refined.stages.measure("codec"):
        content = await front.encode(lambda: _to_json(refined))
    # Headers too, since the TypeScript SDK drops the keys of a job that it does not know.
    headers = {
        "Server-Timing": refined.stages.server_timing(),
        "X-Seed": str(refined.job.seed),
        "X-Steps-Run": str(refined.job.steps_run),
    }
    return json_response(content, headers=headers)


def _read(body: bytes, model: type[RefineRequest]) -> DecodedRequest:
    return read(parse_body(body, model))


def _to_json(refined: GenerationResult) -> bytes:
    urls = [to_data_url(picture, refined.format) for picture in refined.pictures]
    return RefineResponse.of(refined.job, urls).to_json()
