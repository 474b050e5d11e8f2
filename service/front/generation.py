"""One request, from its fields to its files, for every door that takes one: HTTP and WebSocket."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from models.checkpoints.catalog import Pace
from service.engine_client.base import EngineClient
from service.errors import EngineRestarting
from service.front.images.codec import Format, encode_image, read_picture
from service.front.images.masks import composite, looks_inverted, read_mask
from service.front.images.tiles import blend_tiles
from service.front.registry import check_fits
from service.front.schemas.adjustments import find_adjustments
from service.front.schemas.requests import InpaintRequest, RefineRequest, UpscaleRequest
from service.front.schemas.responses import Cost, LcmGenerationJob, picture_parameters
from service.front.state import Front
from service.protocol.jobs import Finished, GenerationParams, Pixels
from service.settings import Settings


@dataclass(frozen=True)
class Route:
    """What a request may hold, the seconds within which it is answered, and its defaults."""

    request: type[RefineRequest]
    deadline_s: Callable[[Settings], float]
    pace: Pace = "refine"


ROUTES: Final = {
    "lcm-instant-refine": Route(RefineRequest, lambda settings: settings.deadline_s),
    "generations-lcm": Route(RefineRequest, lambda settings: settings.live_deadline_s, "live"),
    "lcm-inpainting": Route(InpaintRequest, lambda settings: settings.deadline_s),
    "lcm-upscale": Route(UpscaleRequest, lambda settings: settings.upscale_deadline_s),
}


@dataclass(frozen=True)
class DecodedRequest:
    """A request that has been read: its fields, and its picture and mask fitted to its size."""

    request: RefineRequest
    image: Pixels  # [H, W, 3]
    mask: Pixels | None  # [H, W]


class StageTimer:
    """The stages of one request, in milliseconds."""

    def __init__(self) -> None:
        self.elapsed_ms: dict[str, float] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add what happens within to a stage."""
        started = time.perf_counter()
        yield
        elapsed_ms = 1000 * (time.perf_counter() - started)
        self.elapsed_ms[name] = self.elapsed_ms.get(name, 0.0) + elapsed_ms

    def add_engine(self, finished: Finished) -> None:
        for name, elapsed_ms in vars(finished.times).items():
            self.elapsed_ms[name.removesuffix("_ms")] = elapsed_ms

    def rounded(self) -> dict[str, float]:
        """Return the stages to a tenth of a millisecond."""
        return {name: round(ms, 1) for name, ms in self.elapsed_ms.items()}

    def server_timing(self) -> str:
        """Return the value of a `Server-Timing` header."""
        return ", ".join(f"{name};dur={ms:.1f}" for name, ms in self.elapsed_ms.items())


@dataclass(frozen=True)
class GenerationResult:
    """The result of a request: its pictures as files, and their job for the response."""

    pictures: list[bytes]
    format: Format
    job: LcmGenerationJob
    stages: StageTimer


async def refine(
    front: Front,
    decode: Callable[[], Awaitable[DecodedRequest]],
    deadline: asyncio.Timeout,
    pace: Pace = "refine",
    caller: str = "",
) -> GenerationResult:
    """Make the pictures that are asked for by what `decode` returns, which runs `read` apart.

    `pace` is the route's, and decides what absent fields mean; `caller` is charged. Raises what
    `decode` and the engine's client raise. Cancelling the call aborts the job.
    """
    stages = StageTimer()
    with stages.measure("decode"):
        asked = await decode()
    params = asked.request.to_params(front.served.choose(asked.request, pace))
    finished = await _generate(front.client, params, asked, deadline, caller)
    stages.add_engine(finished)
    with stages.measure("codec"):
        pictures, job = await front.encode(lambda: _write(front, asked, params, finished))
    front.metrics.count_stages(stages.elapsed_ms)
    return GenerationResult(pictures, asked.request.output_format or "jpeg", job, stages)


def read(request: RefineRequest, file: bytes | None = None) -> DecodedRequest:
    """Decode a request's picture, or the `file` that came in its place, and its mask.

    The request that is returned with them holds their text no more. Raises ImageInvalid,
    ImageTooLarge, BodyTooLarge, ValidationFailed. Blocks: call it in a thread.
    """
    height, width = request.size
    source = request.image_data_url if file is None else file
    image = read_picture(source, height=height, width=width, path="$.imageDataUrl")
    if not isinstance(request, InpaintRequest):
        return DecodedRequest(request.model_copy(update={"image_data_url": ""}), image, mask=None)
    mask = read_mask(
        request.mask_data_url, like=source, height=height, width=width, path="$.maskDataUrl"
    )
    texts = {"image_data_url": "", "mask_data_url": ""}
    return DecodedRequest(request.model_copy(update=texts), image, mask)


async def _generate(
    client: EngineClient,
    params: GenerationParams,
    asked: DecodedRequest,
    deadline: asyncio.Timeout,
    caller: str,
) -> Finished:
    """Make the job's pictures. One that is lost with its engine runs once more on the next one.

    The seed is decided by now, so the picture is the same. Where the next engine will not be there
    before the deadline the error is raised at once.
    """

    def remaining_s() -> float:
        return (deadline.when() or 0.0) - asyncio.get_running_loop().time()

    async def attempt() -> Finished:
        check_fits(params, client.health.ready)
        return await client.generate(
            params, asked.image, timeout_s=remaining_s(), mask=asked.mask, caller=caller
        )

    try:
        return await attempt()
    except EngineRestarting as lost:
        is_there = client.health.state == "serving"  # another one, of several
        if not is_there and (lost.retry_after_s or 0) > remaining_s():
            raise
        await client.wait_until("serving", "failed", "stopped")
        return await attempt()


def _write(
    front: Front, asked: DecodedRequest, params: GenerationParams, finished: Finished
) -> tuple[list[bytes], LcmGenerationJob]:
    request, settings = asked.request, front.settings
    files = [
        encode_image(
            pixels,
            format=request.output_format or "jpeg",
            quality=request.output_quality or settings.jpeg_quality,
            metadata=picture_parameters(request, params, finished, index)
            if settings.embed_parameters
            else None,
        )
        for index, pixels in enumerate(_joined(asked, params, finished))
    ]
    return files, _describe(asked, params, finished, settings.gpu_price_per_hour)


def _joined(
    asked: DecodedRequest, params: GenerationParams, finished: Finished
) -> Iterable[Pixels]:
    """Make pictures [H, W, 3] of a job's rows: tiles are blended, masks laid over the input."""
    mask = asked.mask
    if isinstance(asked.request, UpscaleRequest):
        return [blend_tiles(finished.images, params.origins, *asked.request.size)]
    if mask is not None:
        return [composite(asked.image, row, mask) for row in finished.images]
    return list(finished.images)


def _cost(device_ms: float, price_per_hour: float) -> Cost | None:
    """Return the price of the device's time, to a billionth of a dollar."""
    if not price_per_hour:
        return None
    amount = f"{price_per_hour * device_ms / 3_600_000:.9f}"
    return Cost(amount=amount.rstrip("0").rstrip("."))


def _describe(
    asked: DecodedRequest, params: GenerationParams, finished: Finished, price_per_hour: float
) -> LcmGenerationJob:
    is_several = (asked.request.num_images or 1) > 1
    return LcmGenerationJob(
        request_timestamp=asked.request.request_timestamp,
        cost=_cost(finished.device_ms, price_per_hour),
        seeds=list(params.seeds) if is_several else None,
        adjustments=find_adjustments(asked.request, params, finished),
        seed=params.seeds[0],
        steps_run=finished.num_steps_run,
        prompt_tokens_dropped=finished.num_tokens_dropped,
        mask_looks_inverted=None if asked.mask is None else looks_inverted(asked.mask),
        **(_new_ids() if isinstance(asked.request, UpscaleRequest) else {}),
    )


def _new_ids() -> dict[str, Any]:
    return {
        "generation_id": [str(uuid.uuid4())],
        "variation_id": [str(uuid.uuid4())],
        "generated_image_id": str(uuid.uuid4()),
    }
