"""The wire: the only place that knows its words (steps, guidance, style) and their bounds.

Each field's description completes the sentence "FIELD must be ...", so that what the API
documents and what a refusal says are the same words.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from models.checkpoints.catalog import Checkpoint, Defaults
from models.styles.presets import Style, load_styles
from service.front.images.codec import Format
from service.front.images.tiles import TILE_SIDE, plan_tiles
from service.protocol.jobs import Autoencoder, GenerationParams

MAX_SEED = 9_999_999_998
MAX_PROMPT_CHARS = 1500
_MAX_TIMESTAMP_CHARS = 64
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

DEFAULT_REFINE_STRENGTH = 0.6

SIDES = (512, 640, 1024)
MAX_IMAGES = 4
_OURS = "(an extension of this service)"


@dataclass(frozen=True)
class Resolved:
    """What of the server's own tables a request is made with, and its route's defaults."""

    checkpoint: Checkpoint
    style: Style
    defaults: Defaults


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("control character")
    return text


_PLAIN_TEXT: JsonDict = {"pattern": r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"}
_PICTURE: JsonDict = {"format": "picture-data-url"}

Prompt = Annotated[str, AfterValidator(_printable), Field(json_schema_extra=_PLAIN_TEXT)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


def _served_side(pixels: int) -> int:
    if pixels not in SIDES:
        raise ValueError("not served")
    return pixels


# Not a Literal: pydantic takes 512.0 for Literal[512] even when strict.
Side = Annotated[int, AfterValidator(_served_side), Field(json_schema_extra={"enum": list(SIDES)})]


def _finite_timestamp(value: str | float) -> str:
    return _printable(value) if isinstance(value, str) else json.dumps(value, allow_nan=False)


class RefineRequest(BaseModel):
    """The body of an img2img route. Null and absent mean the same, except for required fields."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    image_data_url: str = Field(
        description="a JPEG, PNG or WebP picture as a data URL or bare base64",
        json_schema_extra=_PICTURE,
    )
    prompt: Prompt = Field(
        max_length=MAX_PROMPT_CHARS,
        description=f"text of at most {MAX_PROMPT_CHARS} characters, without control characters",
    )
    guidance: float | None = Field(None, ge=0.5, le=20, description="a number from 0.5 to 20")
    height: Side | None = Field(None, description="one of 512, 640 and 1024")
    width: Side | None = Field(None, description="one of 512, 640 and 1024")
    request_timestamp: (
        Annotated[
            Annotated[str, Field(max_length=_MAX_TIMESTAMP_CHARS, json_schema_extra=_PLAIN_TEXT)]
            | int
            | float,
            AfterValidator(_finite_timestamp),
        ]
        | None
    ) = Field(None, description=f"text of at most {_MAX_TIMESTAMP_CHARS} characters, or a number")
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description=f"an integer from 0 to {MAX_SEED}"
    )
    steps: int | None = Field(None, ge=4, le=16, description="an integer from 4 to 16")
    strength: float | None = Field(None, ge=0.1, le=1, description="a number from 0.1 to 1")
    # Which names there are is known where the server's own styles and checkpoints are.
    style: Name | None = Field(
        None,
        description="the name of a style, see /v1/styles",
        json_schema_extra={"examples": [*load_styles()], "format": "style-name"},
    )
    output_format: Format | None = Field(None, description=f"one of jpeg, png and webp {_OURS}")
    output_quality: int | None = Field(
        None,
        ge=1,
        le=100,
        description=f"an integer from 1 to 100, for a JPEG or WebP answer {_OURS}",
    )
    num_images: int | None = Field(
        None, ge=1, le=MAX_IMAGES, description=f"an integer from 1 to {MAX_IMAGES} {_OURS}"
    )
    negative_prompt: Prompt | None = Field(
        None,
        max_length=MAX_PROMPT_CHARS,
        description=f"text of at most {MAX_PROMPT_CHARS} characters, without control characters "
        f"{_OURS}",
    )
    model_id: Name | None = Field(
        None,
        description=f"the id of a checkpoint that is loaded, see /v1/models {_OURS}",
        json_schema_extra={"format": "model-id"},
    )
    autoencoder: Autoencoder | None = Field(
        None, description=f"full or tiny: the checkpoint's own, or the fast one {_OURS}"
    )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the answer in pixels."""
        return self.height or 512, self.width or 512

    def to_params(self, chosen: Resolved) -> GenerationParams:
        """Decide every value: what the request says, else its style, else the route's default."""
        height, width = self.size
        style, defaults = chosen.style, chosen.defaults
        seed = secrets.randbelow(MAX_SEED + 1) if self.seed is None else self.seed
        return GenerationParams(
            prompt=style.apply(self.prompt),
            height=height,
            width=width,
            num_inference_steps=self.steps or defaults.num_inference_steps,
            strength=self.strength or style.strength or defaults.strength,
            guidance_scale=self.guidance or style.guidance or defaults.guidance_scale,
            seeds=tuple((seed + row) % (MAX_SEED + 1) for row in range(self.num_images or 1)),
            model=chosen.checkpoint.name,
            style=style.name,
            autoencoder=self.autoencoder or defaults.autoencoder,
            negative_prompt=self.negative_prompt,
        )


class InpaintRequest(RefineRequest):
    """The body of the inpainting route: a mask beside the picture."""

    mask_data_url: str = Field(
        description="a picture of the same size, white where it is repainted, black where it stays",
        json_schema_extra=_PICTURE,
    )


class UpscaleRequest(RefineRequest):
    """The body of the upscale route, whose answer is twice as high and wide as asked for."""

    refine_creative: bool | None = Field(
        None, description="true or false: whether detail may depart further from the picture"
    )
    refine_strength: float | None = Field(
        None, ge=0.5, le=0.9, description="a number from 0.5 to 0.9"
    )
    num_images: int | None = Field(
        None, ge=1, le=1, description=f"1: an upscale is one picture {_OURS}"
    )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the answer in pixels."""
        height, width = super().size
        return 2 * height, 2 * width

    def to_params(self, chosen: Resolved) -> GenerationParams:
        """Decide every value: tiles of one seed, and a strength that leaves the picture its own.

        A `strength` in the request holds as it stands.
        """
        params = super().to_params(chosen)
        mapped = upscale_strength(self.refine_strength, is_creative=self.refine_creative)
        origins = plan_tiles(*self.size)
        return replace(
            params,
            height=TILE_SIDE,
            width=TILE_SIDE,
            strength=self.strength or mapped,
            seeds=params.seeds * len(origins),
            origins=origins,
        )


def upscale_strength(refine_strength: float | None, *, is_creative: bool | None) -> float:
    """Map the route's two fields to a strength: half of one, eight tenths with the other."""
    share = 0.8 if is_creative else 0.5
    return round(share * (refine_strength or DEFAULT_REFINE_STRENGTH), 6)  # 0.72, not 0.72...01
