"""What the tests of pictures share: reading with the default limits, and being refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from service.errors import RefineError
from service.front.images.codec import ImageLimits, Pixels, decode_image

PATH = "$.imageDataUrl"


def decode(
    data: bytes, at_least: tuple[int, int] | None = None, limits: ImageLimits | None = None
) -> Pixels:
    return decode_image(data, path=PATH, limits=limits or ImageLimits(), at_least=at_least)


def refusal(data: bytes, limits: ImageLimits | None = None) -> RefineError:
    with pytest.raises(RefineError) as raised:
        decode(data, limits=limits)
    error = raised.value
    assert error.path == PATH
    assert error.message.startswith("imageDataUrl ")
    assert not re.search(r"0x[0-9a-f]{6,}|PIL|BytesIO|Error|[/\\]", error.message)
    assert error.__cause__ is None
    return error


def error_levels(left: Pixels, right: Pixels) -> int:
    return int(np.abs(left.astype(int) - right.astype(int)).max())
