"""The responses on the wire: jobs, costs, adjustments and errors."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from service.front.schemas.requests import RefineRequest
from service.protocol.jobs import Finished, GenerationParams

_LEFT_OUT_WHEN_ABSENT = (
    "requestTimestamp", "generationId", "variationId", "generatedImageId", "maskLooksInverted",
    "seeds", "adjustments",
)  # fmt: skip


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
        """Return the response of a job with its pictures."""
        whole = job.model_copy(update={"image_data_url": image_data_urls})
        return cls(lcm_generation_job=whole)

    def to_json(self) -> bytes:
        """Return the body."""
        content = {"lcmGenerationJob": self.lcm_generation_job.to_content()}
        return json.dumps(content, separators=(",", ":")).encode()


def picture_parameters(
    request: RefineRequest, params: GenerationParams, finished: Finished, index: int = 0
) -> dict[str, str | int | float]:
    """Return the parameters for the EXIF of picture `index`, in the words of the wire."""
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
