"""The img2img routes: one request, from its bytes to its picture, in one direction."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from service.client import EngineClient
from service.errors import BadRequest, DeadlineExceeded, EngineRestarting
from service.front.answers import json_response
from service.front.body import read_json_body, unless_disconnected
from service.front.dataurl import to_data_url
from service.front.front import Front, front_of, require_key
from service.front.images import Format, encode_image, read_picture
from service.front.masks import composite, looks_inverted, read_mask
from service.front.schemas import (
    ErrorResponse,
    InpaintRequest,
    LcmGenerationJob,
    RefineRequest,
    RefineResponse,
    UpscaleRequest,
    parse_body,
    picture_parameters,
)
from service.front.tiles import blend_tiles
from service.jobs import Finished, GenerationParams, Pixels

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


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "A field is missing, unknown or out of its bounds, or the picture is not one",
        401: "The key is missing or unknown",
        413: "The body is too large",
        415: "The body is not JSON",
        500: "This picture could not be made",
        503: "Overloaded, starting or about to end: try again after `Retry-After`",
        504: "Not ready within the deadline",
    }.items()
}

router = APIRouter(
    dependencies=[Depends(require_key)],
    responses={200: {"model": RefineResponse}, **_REFUSALS},
    default_response_class=Response,
)


@router.post("/lcm-instant-refine", openapi_extra=_request_body(RefineRequest))
async def lcm_instant_refine(request: Request) -> Response:
    """Refine a picture by img2img: the main job."""
    return await _answer(request, RefineRequest, front_of(request).settings.deadline_s)


@router.post("/generations-lcm", openapi_extra=_request_body(RefineRequest))
async def generations_lcm(request: Request) -> Response:
    """Refine a doodle while it is drawn: the live-canvas pass, tuned for latency."""
    return await _answer(request, RefineRequest, front_of(request).settings.live_deadline_s)


@router.post("/lcm-inpainting", openapi_extra=_request_body(InpaintRequest))
async def lcm_inpainting(request: Request) -> Response:
    """Repaint the white area of a mask; the black area stays as it was, to the pixel."""
    return await _answer(request, InpaintRequest, front_of(request).settings.deadline_s)


@router.post("/lcm-upscale", openapi_extra=_request_body(UpscaleRequest))
async def lcm_upscale(request: Request) -> Response:
    """Enlarge a picture to twice `width` x `height`, with detail added tile by tile."""
    return await _answer(request, UpscaleRequest, front_of(request).settings.upscale_deadline_s)


async def _answer(request: Request, model: type[RefineRequest], deadline_s: float) -> Response:
    """Answer within the deadline, or give the engine's slots back and say so."""
    front = front_of(request)
    try:
        with front.active_request():
            async with asyncio.timeout(_shortened(request, deadline_s)) as deadline:
                body = await read_json_body(request, front.settings.max_body_bytes)
                return await unless_disconnected(request, _refine(front, body, model, deadline))
    except TimeoutError:
        raise DeadlineExceeded("the picture was not ready within the deadline") from None


def _shortened(request: Request, deadline_s: float) -> float:
    given = request.headers.get(_TIMEOUT_HEADER)
    if given is None:
        return deadline_s
    if not (given.isascii() and given.isdecimal() and int(given[:9]) > 0):
        raise BadRequest("X-Request-Timeout-Ms must be a positive number of milliseconds")
    return min(deadline_s, int(given[:9]) / 1000)


@dataclass(frozen=True)
class _Asked:
    """A request that has been read: its fields, and its picture and mask fitted to its size."""

    request: RefineRequest
    image: Pixels  # [H, W, 3]
    mask: Pixels | None  # [H, W]


async def _refine(
    front: Front, body: bytes, model: type[RefineRequest], deadline: asyncio.Timeout
) -> Response:
    timing = _ServerTiming()
    with timing.stage("decode"):
        asked = await front.decode(lambda: _read(body, model))
    params = asked.request.to_params(front.checkpoint.defaults)
    finished = await _generate(front.client, params, asked, deadline)
    timing.add_engine(finished)
    with timing.stage("codec"):
        content = await front.encode(lambda: _write(front, asked, params, finished))
    # Headers too, since the TypeScript SDK drops the keys of a job that it does not know.
    headers = {
        "Server-Timing": str(timing),
        "X-Seed": str(params.seeds[0]),
        "X-Steps-Run": str(finished.num_steps_run),
    }
    return json_response(content, headers=headers)


async def _generate(
    client: EngineClient, params: GenerationParams, asked: _Asked, deadline: asyncio.Timeout
) -> Finished:
    """Make the job's pictures. One that is lost with its engine runs once more on the next one.

    The seed is decided by now, so the picture is the same.
    """

    async def attempt() -> Finished:
        remaining_s = (deadline.when() or 0.0) - asyncio.get_running_loop().time()
        return await client.generate(params, asked.image, timeout_s=remaining_s, mask=asked.mask)

    try:
        return await attempt()
    except EngineRestarting:
        await client.wait_until("serving", "failed", "stopped")
        return await attempt()


def _read(body: bytes, model: type[RefineRequest]) -> _Asked:
    request = parse_body(body, model)
    height, width = request.size
    url = request.image_data_url
    image = read_picture(url, height=height, width=width, path="$.imageDataUrl")
    if not isinstance(request, InpaintRequest):
        return _Asked(request, image, mask=None)
    mask = read_mask(
        request.mask_data_url, like=url, height=height, width=width, path="$.maskDataUrl"
    )
    return _Asked(request, image, mask)


def _write(front: Front, asked: _Asked, params: GenerationParams, finished: Finished) -> bytes:
    request, mask = asked.request, asked.mask
    output_format: Format = request.output_format or "jpeg"
    parameters = picture_parameters(front.checkpoint.name, request, params, finished)
    picture = encode_image(
        _joined(asked, params, finished),
        format=output_format,
        quality=front.settings.jpeg_quality,
        metadata=parameters if front.settings.embed_parameters else None,
    )
    job = LcmGenerationJob(
        image_data_url=[to_data_url(picture, output_format)],
        request_timestamp=request.request_timestamp,
        seed=params.seeds[0],
        steps_run=finished.num_steps_run,
        prompt_tokens_dropped=finished.num_tokens_dropped,
        mask_looks_inverted=None if mask is None else looks_inverted(mask),
        **(_new_ids() if isinstance(request, UpscaleRequest) else {}),
    )
    return RefineResponse(lcm_generation_job=job).to_json()


def _joined(asked: _Asked, params: GenerationParams, finished: Finished) -> Pixels:
    """Make one picture [H, W, 3] of a job's rows: tiles are blended, masks laid over the input."""
    if isinstance(asked.request, UpscaleRequest):
        return blend_tiles(finished.images, params.origins, *asked.request.size)
    if asked.mask is not None:
        return composite(asked.image, finished.images[0], asked.mask)
    first: Pixels = finished.images[0]
    return first


def _new_ids() -> dict[str, Any]:
    return {
        "generation_id": [str(uuid.uuid4())],
        "variation_id": [str(uuid.uuid4())],
        "generated_image_id": str(uuid.uuid4()),
    }


class _ServerTiming:
    """The stages of one request in milliseconds, as the `Server-Timing` header writes them."""

    def __init__(self) -> None:
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._stages[name] = 1000 * (time.perf_counter() - started)

    def add_engine(self, finished: Finished) -> None:
        for name, elapsed_ms in vars(finished.times).items():
            self._stages[name.removesuffix("_ms")] = elapsed_ms

    def __str__(self) -> str:
        return ", ".join(f"{name};dur={elapsed:.1f}" for name, elapsed in self._stages.items())
