"""The wire: the only place that knows its words (steps, guidance, style) and their bounds.

Each field's description completes the sentence "FIELD must be ...", so that what the API
documents and what a refusal says are the same words.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from models.catalog import Checkpoint, Defaults
from models.styles import Style, load_styles
from service.errors import BadRequest, ValidationFailed
from service.front.images import Format
from service.front.tiles import TILE_SIDE, plan_tiles
from service.jobs import Autoencoder, Finished, GenerationParams

MAX_SEED = 9_999_999_998
MAX_PROMPT_CHARS = 1500
_MAX_DIGITS = 20
_MAX_TIMESTAMP_CHARS = 64
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

DEFAULT_REFINE_STRENGTH = 0.6
_LEFT_OUT_WHEN_ABSENT = (
    "requestTimestamp", "generationId", "variationId", "generatedImageId", "maskLooksInverted",
    "seeds", "adjustments",
)  # fmt: skip

SIDES = (512, 640, 1024)
MAX_IMAGES = 4
_OURS = "(an extension of this service)"


@dataclass(frozen=True)
class Chosen:
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

    def to_params(self, chosen: Chosen) -> GenerationParams:
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

    def to_params(self, chosen: Chosen) -> GenerationParams:
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


class Cost(BaseModel):
    """What a job cost its operator, in the hosted shape."""

    amount: str = Field(examples=["0.00003"])
    unit: Literal["DOLLARS"] = "DOLLARS"


class Adjustment(BaseModel):
    """A field that was clamped, mapped or ignored: `used` is null where it was ignored."""

    field: str
    asked: str | int | float
    used: str | int | float | None
    reason: str


def upscale_strength(refine_strength: float | None, *, is_creative: bool | None) -> float:
    """Map the route's two fields to a strength: half of one, eight tenths with the other."""
    share = 0.8 if is_creative else 0.5
    return round(share * (refine_strength or DEFAULT_REFINE_STRENGTH), 6)  # 0.72, not 0.72...01


class LcmGenerationJob(BaseModel):
    """The picture and what became of the request. Further keys than the hosted ones are ours."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    image_data_url: list[str] = Field(
        default_factory=list, description="the pictures, a data URL each"
    )
    request_timestamp: str | None = Field(
        None, description="the request's, as text; left out when the request had none"
    )
    api_credit_cost: None = None
    cost: Cost | None = Field(
        None, description="the device's time at REFINE_GPU_PRICE_PER_HOUR; null without a price"
    )
    seed: int = Field(description="the seed that was used, drawn at random where none was given")
    steps_run: int = Field(description="UNet steps run; fewer than asked where strength is small")
    prompt_tokens_dropped: int = Field(description="tokens beyond what the text encoder reads")
    seeds: list[int] | None = Field(None, description="of several pictures, the seed of each")
    adjustments: list[Adjustment] | None = Field(
        None, description="what was asked for and not done as asked; left out when there is none"
    )
    generation_id: list[str] | None = Field(None, description="upscale alone: a UUID")
    variation_id: list[str] | None = Field(None, description="upscale alone: a UUID")
    generated_image_id: str | None = Field(None, description="upscale alone: a UUID")
    mask_looks_inverted: bool | None = Field(
        None, description="inpainting alone: the mask is mostly white, and black within"
    )

    def to_content(self) -> dict[str, Any]:
        """Return the job as JSON. An absent timestamp is left out: a null makes an SDK throw."""
        content = self.model_dump(by_alias=True)
        return {
            name: value
            for name, value in content.items()
            if value is not None or name not in _LEFT_OUT_WHEN_ABSENT
        }


class RefineResponse(BaseModel):
    """The answer of an img2img route."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    lcm_generation_job: LcmGenerationJob

    @classmethod
    def of(cls, job: LcmGenerationJob, image_data_urls: list[str]) -> Self:
        """Return the answer that tells of a job and holds its pictures."""
        whole = job.model_copy(update={"image_data_url": image_data_urls})
        return cls(lcm_generation_job=whole)

    def to_json(self) -> bytes:
        """Return the body."""
        content = {"lcmGenerationJob": self.lcm_generation_job.to_content()}
        return json.dumps(content, separators=(",", ":")).encode()


def picture_parameters(
    request: RefineRequest, params: GenerationParams, finished: Finished, index: int = 0
) -> dict[str, str | int | float]:
    """Return what the picture `index` is told of its own making, in the words of the wire."""
    height, width = request.size
    negative = params.negative_prompt if finished.reads_negative_prompt else None
    return {
        "model": params.model,
        "prompt": request.prompt,
        **({} if negative is None else {"negativePrompt": negative}),
        "style": request.style or "NONE",
        "steps": params.num_inference_steps,
        "stepsRun": finished.num_steps_run,
        "strength": params.strength,
        "guidance": params.guidance_scale,
        "seed": params.seeds[index],
        "autoencoder": finished.autoencoder,
        "width": width,
        "height": height,
    }


class ErrorResponse(BaseModel):
    """Every refusal and failure."""

    error: str = Field(description="a sentence that names the field and the bound")
    path: str = Field(description="where in the request, `$` for the whole", examples=["$.steps"])
    code: str = Field(examples=["validation-failed"])


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "A field is missing, unknown or out of its bounds, or the picture is not one",
        401: "The key is missing or unknown",
        413: "The body is too large",
        415: "The body is not JSON",
        429: "Over what this key may have at a time: try again after `Retry-After`",
        500: "This picture could not be made",
        503: "Overloaded, starting or about to end: try again after `Retry-After`",
        504: "Not ready within the deadline",
    }.items()
}
"""How each refusal is documented, by its status."""

KEY_REFUSALS: dict[int | str, dict[str, Any]] = {status: REFUSALS[status] for status in (401, 429)}


Request = TypeVar("Request", bound=BaseModel)


def parse_body(body: bytes, model: type[Request]) -> Request:
    """Read a request body strictly.

    Raises BadRequest for what is not one JSON object with each known key once, ValidationFailed
    for a value of the wrong type or out of its bounds.
    """
    try:
        content = parse_json(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadRequest("the body must be one JSON object in UTF-8") from None
    return validate(content, model)


def validate(content: dict[str, Any], model: type[Request]) -> Request:
    """Hold JSON against its model. Raises BadRequest, ValidationFailed."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise _to_refusal(model, first["type"], first["loc"]) from None


_MAX_MARKS = 10_000
"""Commas, colons and brackets of a body, which a long prompt may hold, too.

Without a bound 50,000 keys were 100,000 objects before the first of them was refused.
"""


class _DuplicateKeyError(ValueError):
    pass


def parse_json(text: str, *, what: str = "body") -> dict[str, Any]:
    """Read one JSON object, each key once. `what` it is stands in errors. Raises BadRequest."""
    if sum(text.count(mark) for mark in ",:[{") > _MAX_MARKS:
        raise BadRequest(f"the {what} has too many values")
    try:
        content = json.loads(text, object_pairs_hook=_unique_keys, parse_int=_bounded_int)
    except _DuplicateKeyError:
        raise BadRequest(f"the {what} names a field twice") from None
    except (ValueError, RecursionError):
        raise BadRequest(f"the {what} must be one JSON object in UTF-8") from None
    if not isinstance(content, dict):
        raise BadRequest(f"the {what} must be one JSON object in UTF-8")
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise _DuplicateKeyError
    return content


def _bounded_int(digits: str) -> int | float:
    # Python refuses to convert thousands of digits; infinity is out of every bound as well.
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def _to_refusal(
    model: type[BaseModel], kind: str, location: tuple[int | str, ...]
) -> BadRequest | ValidationFailed:
    if not location:  # a key that is no text: half of a surrogate pair
        return BadRequest("the body holds a field that is unknown here")
    name = str(location[0])
    known = {to_camel(field): info for field, info in model.model_fields.items()}
    if kind == "extra_forbidden":
        return _unknown_field(name, list(known))
    path = f"$.{name}"
    if kind == "missing":
        return ValidationFailed(f"{name} is required", path=path)
    return ValidationFailed(f"{name} must be {known[name].description}", path=path)


def _unknown_field(name: str, known: list[str]) -> BadRequest:
    if not _FIELD_NAME.fullmatch(name):
        return BadRequest("the body holds a field that is unknown here")
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return BadRequest(f"{name} is not a field of this route{hint}", path=f"$.{name}")
