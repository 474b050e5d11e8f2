"""Refine one file from the command line: the request's own way, with an engine of its own."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from models.errors import CheckpointError
from service.engine_client.base import EngineClient
from service.front.images.codec import Format, encode_image, read_picture, to_data_url
from service.front.registry import Served
from service.front.schemas.parsing import parse_body
from service.front.schemas.requests import RefineRequest
from service.front.schemas.responses import picture_parameters
from service.protocol.jobs import Finished, GenerationParams, Pixels
from service.protocol.jobs import Progress as StepsDone
from service.settings import Settings

_SUFFIXES: dict[str, Format] = {
    ".jpg": "jpeg",
    **{f".{name}": name for name in get_args(Format)},
}


def refine_file(
    picture: Path,
    output: Path,
    *,
    fields: Mapping[str, Any],
    settings: Settings,
    client: EngineClient,
    console: Console,
) -> None:
    """Refine `picture` into `output`, with a progress bar, and print seed and stages.

    `fields` are those of the API. Raises RefineError for a field or picture that the API would
    refuse, CheckpointError when the engine cannot start.
    """
    output_format = _format_of(output)
    request = _to_request(picture, fields)
    height, width = request.size
    image = read_picture(request.image_data_url, height=height, width=width, path="$.IN")
    params = request.to_params(Served.of(settings).choose(request, "refine"))
    finished = asyncio.run(_generate(client, params, image, console))
    metadata = picture_parameters(request, params, finished)
    output.write_bytes(
        encode_image(
            finished.images[0],
            format=output_format,
            quality=settings.jpeg_quality,
            metadata=metadata if settings.embed_parameters else None,
        )
    )
    _report(output, params, finished, console)


def _format_of(output: Path) -> Format:
    if output.suffix.lower() not in _SUFFIXES:
        raise CheckpointError(f"{output} must end in one of {', '.join(_SUFFIXES)}")
    return _SUFFIXES[output.suffix.lower()]


def _to_request(picture: Path, fields: Mapping[str, Any]) -> RefineRequest:
    data_url = to_data_url(picture.read_bytes(), "jpeg")  # the bytes decide, not the name
    return parse_body(json.dumps({**fields, "imageDataUrl": data_url}).encode(), RefineRequest)


async def _generate(
    client: EngineClient,
    params: GenerationParams,
    image: Pixels,
    console: Console,
) -> Finished:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting the engine", total=None)

        def show(done: StepsDone) -> None:
            progress.update(task, description="refining", completed=done.step, total=done.num_steps)

        await client.start()
        try:
            health = await client.wait_until("serving", "failed", "restarting")
            if health.state != "serving":
                raise CheckpointError(health.message or "the engine ended while it started")
            return await client.generate(params, image, timeout_s=math.inf, on_progress=show)
        finally:
            await client.stop()


def _report(output: Path, params: GenerationParams, finished: Finished, console: Console) -> None:
    stages = ", ".join(
        f"{name.removesuffix('_ms')} {elapsed:.0f} ms"
        for name, elapsed in vars(finished.times).items()
    )
    console.print(f"{output}: seed {params.seeds[0]}, {finished.num_steps_run} steps; {stages}")
    if finished.num_tokens_dropped:
        console.print(
            f"the prompt was too long: its last {finished.num_tokens_dropped} tokens were dropped"
        )
