"""What both SDKs send, and what every answer to them must hold, told in the words of the wire."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.soak.picture_files import encoded, scene
from service.front.images.codec import read_metadata
from service.front.schemas.requests import MAX_SEED
from service.protocol.jobs import GenerationParams
from tests.support.backends import Witness
from tests.support.fakes import FakeEngineClient
from tests.support.servers import MAX_BODY_BYTES

DATA_URL_PREFIX = "data:image/jpeg;base64,"
ROUTES = ["/lcm-instant-refine", "/generations-lcm"]
PREFIXES = ["", "/api/rest/v1", "/api/rest/v1/"]
TYPED_FIELDS = {"imageDataUrl", "requestTimestamp", "apiCreditCost", "cost"}
"""Everything that the SDKs' own type of a job has."""

JPEG_NOISE_LEVELS = 3  # of 255, on average


def to_data_url(image: Image.Image) -> str:
    return DATA_URL_PREFIX + base64.b64encode(encoded(image, "JPEG")).decode()


PICTURE = scene(640, 1024)
LEAST: dict[str, Any] = {"imageDataUrl": to_data_url(scene(96, 128)), "prompt": "a boat"}
ALL: dict[str, Any] = {
    "imageDataUrl": to_data_url(PICTURE),
    "prompt": "ein Boot, größer 🛶",
    "guidance": 7.5,
    "height": 640,
    "width": 1024,
    "requestTimestamp": "2026-01-02T03:04:05.678Z",
    "seed": MAX_SEED,
    "steps": 6,
    "strength": 0.35,
    "style": "RENDER_3D",
}
MASK = Image.new("L", (128, 96), 255)
INPAINT: dict[str, Any] = LEAST | {"maskDataUrl": to_data_url(MASK)}
UPSCALE: dict[str, Any] = LEAST | {"refineCreative": True, "refineStrength": 0.7}
NULLS: dict[str, Any] = LEAST | dict.fromkeys(
    ["guidance", "height", "width", "seed", "steps", "strength", "style"]
)
OUT_OF_BOUNDS = [("steps", 3), ("strength", 1.01), ("width", 513), ("seed", MAX_SEED + 1)]
TOO_LARGE: dict[str, Any] = LEAST | {"imageDataUrl": DATA_URL_PREFIX + "A" * MAX_BODY_BYTES}

UPSCALE_FIELDS = {"generationId", "variationId", "generatedImageId"}
"""What the SDKs' type of an upscale's job has besides."""

BROKEN_ANSWERS: list[dict[str, Any]] = [
    {"requestTimestamp": 5},
    {"requestTimestamp": 5.0},
    {"apiCreditCost": 0.5},
    {"imageDataUrl": LEAST["imageDataUrl"]},
]
"""Parts of a job that cost the caller the picture, in each SDK: hold the server to its contract."""


def answer_with(part: Mapping[str, Any]) -> str:
    """The text of an answer that is right but for this part of its job."""
    job = {"imageDataUrl": [LEAST["imageDataUrl"]], "requestTimestamp": "5", **part}
    return json.dumps({"lcmGenerationJob": job})


def cut(job: Mapping[str, Any]) -> bytes:
    """The file of a job's one picture, cut at the only comma as clients do."""
    [data_url] = job["imageDataUrl"]
    assert data_url.startswith(DATA_URL_PREFIX)
    _, payload = data_url.split(",")
    return base64.b64decode(payload, validate=True)


def size_of(job: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height of a job's one picture."""
    with Image.open(io.BytesIO(cut(job))) as picture:
        return picture.size


def the_asked(job: Mapping[str, Any], witness: Witness) -> GenerationParams:
    """What the engine was asked for, which must have been one thing."""
    assert witness.num_asked == 1
    return witness.params_of(cut(job))


def check_picture(job: Mapping[str, Any], witness: Witness) -> None:
    """The job holds one JPEG of the size that was asked for."""
    params = the_asked(job, witness)
    with Image.open(io.BytesIO(cut(job))) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (params.width, params.height)


def check_the_negative(job: Mapping[str, Any], engine: FakeEngineClient) -> None:
    """Its pixels are what the fake engine makes: the negative of what was sent."""
    [(_, given, _)] = engine.asked
    with Image.open(io.BytesIO(cut(job))) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
    assert np.abs(pixels - (255 - given.astype(int))).mean() < JPEG_NOISE_LEVELS
    assert np.abs(given - np.asarray(PICTURE, dtype=int)).mean() < JPEG_NOISE_LEVELS


def check_all_reached_the_engine(job: Mapping[str, Any], witness: Witness) -> None:
    """Every value of `ALL` arrived as it was sent."""
    params = the_asked(job, witness)
    assert ALL["prompt"] in params.prompt
    assert params.prompt != ALL["prompt"], "the style says nothing"
    assert (params.height, params.width) == (ALL["height"], ALL["width"])
    assert params.guidance_scale == ALL["guidance"]
    assert params.seeds == (ALL["seed"],)
    assert params.num_inference_steps == ALL["steps"]
    assert params.strength == ALL["strength"]


def check_seed_is_told(answer: str, witness: Witness) -> None:
    """The seed that the engine got stands in the answer's text and in the picture itself."""
    job = json.loads(answer)["lcmGenerationJob"]
    [seed] = the_asked(job, witness).seeds
    assert 0 <= seed <= MAX_SEED
    assert job["seed"] == seed
    parameters = read_metadata(cut(job))
    assert parameters is not None
    assert parameters["seed"] == seed


def check_refusal(body: str, code: str, path: str = "$") -> None:
    """An error's body is the contract's, which the SDKs hand over as text."""
    content = json.loads(body)
    assert content.keys() == {"error", "path", "code"}
    assert (content["code"], content["path"]) == (code, path)
    assert path.removeprefix("$.") in content["error"] or path == "$"
