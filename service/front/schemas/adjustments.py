"""`adjustments`: every field that was clamped, mapped or ignored, with the reason."""

from __future__ import annotations

from collections.abc import Iterator

from service.front.schemas.requests import RefineRequest
from service.front.schemas.responses import Adjustment
from service.protocol.jobs import Finished, GenerationParams


def find_adjustments(
    request: RefineRequest, params: GenerationParams, finished: Finished
) -> list[Adjustment] | None:
    """Return what of a request was clamped, mapped or ignored; None where nothing was."""
    return list(_find(request, params, finished)) or None


def _find(
    request: RefineRequest, params: GenerationParams, finished: Finished
) -> Iterator[Adjustment]:
    if finished.num_steps_run < params.num_inference_steps:
        yield Adjustment(
            field="steps",
            asked=params.num_inference_steps,
            used=finished.num_steps_run,
            reason="this strength leaves no more points of the distilled grid",
        )
    if finished.guidance_scale is not None:
        yield Adjustment(
            field="guidance",
            asked=params.guidance_scale,
            used=finished.guidance_scale,
            reason="mapped to the range within which this checkpoint holds together",
        )
    if request.negative_prompt is not None and not finished.reads_negative_prompt:
        yield Adjustment(
            field="negativePrompt",
            asked=request.negative_prompt,
            used=None,
            reason="this checkpoint embeds its guidance, so that nothing is led away from",
        )
    if request.autoencoder is not None and finished.autoencoder != request.autoencoder:
        yield Adjustment(
            field="autoencoder",
            asked=request.autoencoder,
            used=finished.autoencoder,
            reason="this checkpoint has no tiny autoencoder beside its own",
        )
    if request.output_quality is not None and request.output_format == "png":
        yield Adjustment(
            field="outputQuality",
            asked=request.output_quality,
            used=None,
            reason="a PNG keeps every pixel as it is",
        )
