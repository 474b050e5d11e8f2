"""An upscale by the bundled model: no seam where its tiles meet, and no mere resampling."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.front.images.tiles import TILE_SIDE, plan_tiles
from tests.whole_service.test_service import Served, served

pytestmark = pytest.mark.slow

SIDE = 1024
DOODLE = Path(__file__).parents[2] / "docs" / "images" / "doodle.jpg"
CELL = 8  # pixels of a latent
PATIENCE_S = 280
"""A machine that does other things takes minutes for what else takes ten seconds."""


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served("pocket", REFINE_UPSCALE_DEADLINE_S=str(PATIENCE_S)) as service:
        yield service


def upscaled(service: Served, **fields: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the doodle of a house at twice its size, [1024, 1024, 3]."""
    url = "data:image/jpeg;base64," + base64.b64encode(DOODLE.read_bytes()).decode()
    body = {"imageDataUrl": url, "prompt": "a red house in a meadow", "seed": 7, **fields}
    body |= {"width": SIDE // 2, "height": SIDE // 2, "outputFormat": "png"}
    answer = httpx.post(service.url + "/lcm-upscale", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    (job,) = answer.json().values()
    picture = base64.b64decode(job["imageDataUrl"][0].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(picture)), np.float32)


def borders() -> list[int]:
    """Return where, along a side, a tile begins or ends within the picture."""
    starts = {x for _, x in plan_tiles(SIDE, SIDE)}
    return sorted({at for x in starts for at in (x, x + TILE_SIDE)} - {0, SIDE})


def test_tiles_leave_no_seam(service: Served) -> None:
    """The mean absolute second difference across borders is within 1.2 times that elsewhere.

    Elsewhere are the lines of the autoencoder's grid that no border lies on: a decoder's cells of
    8 pixels bend where they meet, all over a picture, and every border lies on such a line.
    """
    picture = upscaled(service)
    for axis in (0, 1):
        bends = np.abs(np.diff(picture, 2, axis=axis)).mean((1 - axis, 2))  # centred on 1..1022
        lines = range(CELL, SIDE, CELL)
        on_line = {at: bends[at - 2 : at].mean() for at in lines}
        across = [on_line.pop(at) for at in borders()]
        ratio = np.mean(across) / np.mean(list(on_line.values()))
        print(f"axis {axis}: {ratio:.2f} times that elsewhere")
        assert ratio < 1.2


def test_prompt_and_seed_have_a_say(service: Served) -> None:
    """Another prompt and another seed give other pictures: it is no mere resampling."""
    plain = upscaled(service)
    for other in ({"prompt": "a blue house at night"}, {"seed": 8}):
        assert np.abs(upscaled(service, **other) - plain).mean() > 2
