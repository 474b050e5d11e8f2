"""The styles over HTTP: what they do, what they look like, and where they have a LoRA."""

from __future__ import annotations

from typing import Annotated, get_args

from fastapi import APIRouter, Depends
from fastapi import Path as PathParam
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from models.styles.presets import Style
from service.errors import NotFound
from service.front.dependencies import front_of, require_key
from service.front.images.codec import Format
from service.front.schemas.responses import KEY_REFUSALS
from service.front.state import Front
from service.protocol.messages import Ready

router = APIRouter(dependencies=[Depends(require_key)], responses=KEY_REFUSALS)


class Fit(BaseModel):
    """How a style and a checkpoint go together; null while the checkpoint loads."""

    available: bool | None = Field(description="false where the style's LoRA does not fit")
    has_lora: bool | None = Field(description="whether a LoRA is applied, not words alone")


class ListedStyle(Fit):
    """A style as listed; paths of this machine are left out."""

    name: str
    title: str
    prompt: str = Field(description="the template that the caller's words are put into")
    lora_weight: float
    guidance: float | None = Field(description="what a request gets that leaves it out")
    strength: float | None = Field(description="the same")
    thumbnail: str | None = Field(
        description="the path of a small picture, which changes with it; null where there is none"
    )
    models: dict[str, Fit] = Field(description="by checkpoint; beside it stands the default one's")


class StyleList(BaseModel):
    """What can be asked for as `style`."""

    styles: list[ListedStyle]


@router.get("/v1/styles")
async def styles(request: Request) -> StyleList:
    """List the styles, the templates that they put a prompt into, and where they have a LoRA."""
    front = front_of(request)
    return StyleList(styles=[_listed(style, front) for style in front.served.styles.values()])


@router.get(
    "/v1/styles/{name:path}/thumbnail",
    response_class=Response,
    responses={
        200: {"content": {f"image/{name}": {} for name in get_args(Format)}},
        304: {"description": "The copy with that ETag is the present one"},
        404: {"description": "There is no such style, or it has no thumbnail"},
    },
)
async def thumbnail(
    request: Request, name: Annotated[str, PathParam(json_schema_extra={"format": "style-name"})]
) -> Response:
    """Show what a style looks like: a small picture."""
    thumbnails = front_of(request).served.thumbnails
    if name not in thumbnails:
        raise NotFound("there is no such style, or it has no thumbnail")
    found = thumbnails[name]
    headers = found.headers(request.query_params.get("v"))
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


def _listed(style: Style, front: Front) -> ListedStyle:
    served, ready = front.served, front.client.health.ready
    thumbnail = served.thumbnails.get(style.name)
    models = {name: _fit(style.name, name, ready) for name in served.checkpoints}
    return ListedStyle(
        **style.model_dump(exclude={"lora", "thumbnail"}),
        **models[served.default.name].model_dump(),
        thumbnail=thumbnail and thumbnail.url(style.name),
        models=models,
    )


def _fit(style: str, checkpoint: str, ready: Ready | None) -> Fit:
    if ready is None:
        return Fit(available=None, has_lora=None)
    return Fit(
        available=style not in ready.misfits.get(checkpoint, ()),
        has_lora=style in ready.loras.get(checkpoint, ()),
    )
