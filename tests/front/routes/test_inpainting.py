"""The inpainting route: what is black in the mask comes back as it was, to the pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from service.protocol.jobs import Pixels
from tests.support.api import Api, data_url, picture_of
from tests.support.fakes import FakeEngineClient

ROUTE = "/lcm-inpainting"
PIXELS: Pixels = np.kron(
    np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8),
    np.ones((8, 8, 1), np.uint8),
)
URL = data_url(Image.fromarray(PIXELS))


def mask_of(box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", (512, 512), 0)
    mask.paste(255, box)
    return mask


@pytest.mark.real_engines
@pytest.mark.parametrize("prefix", ["", "/api/rest/v1"])
def test_black_stays_and_white_is_repainted(api: Api, prefix: str) -> None:
    """In a PNG answer every black pixel is the input's, and white ones are not."""
    mask = mask_of((100, 120, 400, 300))
    answer = api.refine(
        prefix + ROUTE, imageDataUrl=URL, maskDataUrl=data_url(mask), outputFormat="png"
    )
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(picture_of(answer))) as image:
        result = np.asarray(image)
    black = np.asarray(mask) == 0
    np.testing.assert_array_equal(result[black], PIXELS[black])
    assert (result[~black] != PIXELS[~black]).any()
    assert answer.json()["lcmGenerationJob"]["maskLooksInverted"] is False


def test_the_engine_is_given_the_mask(api: Api, engine: FakeEngineClient) -> None:
    """As it was sent, to the pixel, and what it makes of the white area is what comes back."""
    mask = mask_of((100, 120, 400, 300))
    answer = api.refine(ROUTE, imageDataUrl=URL, maskDataUrl=data_url(mask), outputFormat="png")
    given = engine.masks[-1]
    assert given is not None
    np.testing.assert_array_equal(given, np.asarray(mask))
    with Image.open(io.BytesIO(picture_of(answer))) as image:
        np.testing.assert_array_equal(image.getpixel((250, 200)), 255 - PIXELS[200, 250])
    api.refine()
    assert engine.masks[-1] is None


def test_an_inverted_mask_is_told(api: Api) -> None:
    """The answer says so, and the request runs as it was given."""
    mask = Image.fromarray(255 - np.asarray(mask_of((100, 100, 300, 300))))
    answer = api.refine(ROUTE, imageDataUrl=URL, maskDataUrl=data_url(mask))
    assert answer.json()["lcmGenerationJob"]["maskLooksInverted"] is True


def test_other_routes_take_no_mask(api: Api) -> None:
    """A mask where it would do nothing is refused; a plain refine says nothing of masks."""
    answer = api.refine(maskDataUrl=URL)
    api.refused(answer, 400, "bad-request", "$.maskDataUrl")
    assert "maskLooksInverted" not in api.refine().json()["lcmGenerationJob"]


@pytest.mark.parametrize(
    ("mask", "code"),
    [
        (None, "validation-failed"),
        ("", "image-invalid"),
        ("not a picture", "image-invalid"),
        (data_url(Image.new("L", (511, 512))), "validation-failed"),
    ],
)
def test_a_bad_mask_is_refused_by_name(api: Api, mask: str | None, code: str) -> None:
    """Missing, broken, or of another size: 400, with the field."""
    answer = api.refine(ROUTE, imageDataUrl=URL, maskDataUrl=mask)
    api.refused(answer, 400, code, "$.maskDataUrl")
