"""All four routes, three styles and two LoRAs at once, over HTTP, on an engine in batches of 4."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.front.images.tiles import plan_tiles
from service.protocol.jobs import Pixels
from tests.support.api import data_url
from tests.support.engine_runs import load, noise_image
from tests.support.loras import ATTENTION, EVERYWHERE, random_factors, write_lora
from tests.support.servers import START_S, wait_until
from tests.whole_service.test_service import Served, served

STEPS = 4
PLAIN, *WITH_LORA = STYLES = ["ANIME", "SKETCH_BW", "FANTASY_ART"]
ASKED = [
    ("lcm-instant-refine", "SKETCH_BW"),
    ("lcm-upscale", "FANTASY_ART"),
    ("generations-lcm", "ANIME"),
    ("lcm-inpainting", "FANTASY_ART"),
    ("lcm-instant-refine", "ANIME"),
    ("generations-lcm", "SKETCH_BW"),
    ("lcm-inpainting", "SKETCH_BW"),
]
NUM_ROWS = STEPS * (len(ASKED) - 1 + len(plan_tiles(1024, 1024)))
PATIENCE_S = 800
PATIENT = {f"REFINE_{name}DEADLINE_S": str(PATIENCE_S) for name in ("", "LIVE_", "UPSCALE_")}
"""A machine that does other things takes minutes for what else takes seconds."""


@dataclass(frozen=True)
class Counted:
    """What the engine has counted: UNet calls, and the rows that shared them."""

    calls: int
    rows: int

    def since(self, before: Counted) -> Counted:
        return Counted(self.calls - before.calls, self.rows - before.rows)


@pytest.fixture(scope="module")
def service(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A random checkpoint with a LoRA of its own for each of two styles."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("mixed") / "tiny")
    unet = load(tiny_checkpoint).unet
    for seed, (style, layers) in enumerate(zip(WITH_LORA, (EVERYWHERE, ATTENTION), strict=True)):
        factors = {"unet": random_factors(unet, layers, seed=seed)}
        write_lora(folder / "loras" / f"{style}.safetensors", factors)
    settings = {"REFINE_MAX_BATCH": "4", "REFINE_METRICS_NO_AUTH": "true", **PATIENT}
    with served(folder, **settings) as service:
        yield service


def mask_url() -> str:
    mask = Image.new("L", (512, 512))
    ImageDraw.Draw(mask).ellipse((120, 90, 400, 430), fill=255)
    return data_url(mask)


def bodies() -> list[tuple[str, dict[str, Any]]]:
    """Return the requests: no two have a picture, a prompt, a guidance or a seed in common."""
    asked = []
    for seed, (route, style) in enumerate(ASKED):
        body = {
            "imageDataUrl": data_url(Image.fromarray(noise_image(512, 512, seed=seed))),
            "prompt": f"picture {seed}",
            "style": style,
            "seed": seed,
            "steps": STEPS,
            "guidance": 4 + seed,
            "outputFormat": "png",
        }
        if route == "lcm-inpainting":
            body["maskDataUrl"] = mask_url()
        asked.append((route, body))
    return asked


def ask(service: Served, route: str, body: dict[str, Any]) -> Pixels:
    answer = httpx.post(f"{service.url}/{route}", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    (url,) = answer.json()["lcmGenerationJob"]["imageDataUrl"]
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def count(service: Served) -> Counted:
    """Read the engine's statistics, as its last heartbeat told them."""
    text = httpx.get(f"{service.url}/metrics").text
    calls, rows = (
        int(float(re.findall(rf"^refine_engine_batch_rows_{what}\{{.*\}} (\S+)$", text, re.M)[0]))
        for what in ("count", "sum")
    )
    return Counted(calls, rows)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(PATIENCE_S)
def test_all_routes_styles_and_loras_share_batches(service: Served) -> None:
    """Seven requests at once give the pictures that each gives alone, within 1 level.

    The engine's own count says that rows of different requests shared its calls: it needed fewer
    of them for the same rows, though an upscale's tiles share theirs when it is alone, too.
    """
    wait_until(lambda: service.readiness().json()["phase"] == "serving", START_S)
    styles = httpx.get(f"{service.url}/v1/styles").json()["styles"]
    assert {style["name"] for style in styles if style["has_lora"]} == set(WITH_LORA)
    asked = bodies()

    start = count(service)
    alone = [ask(service, route, body) for route, body in asked]
    wait_until(lambda: count(service).since(start).rows == NUM_ROWS, PATIENCE_S)
    middle = count(service)

    with ThreadPoolExecutor(len(asked)) as threads:
        together = list(threads.map(lambda each: ask(service, *each), asked))
    wait_until(lambda: count(service).since(middle).rows == NUM_ROWS, PATIENCE_S)
    lone, mixed = middle.since(start), count(service).since(middle)

    for (route, body), one, many in zip(asked, alone, together, strict=True):
        side = 1024 if route == "lcm-upscale" else 512
        assert one.shape == many.shape == (side, side, 3)
        assert one.std() > 1, "a flat picture would equal any other"
        levels = np.abs(one.astype(int) - many).max()
        assert levels <= 1, f"{route} in {body['style']} is {levels} levels off"
    assert mixed.rows / mixed.calls > 1
    assert mixed.calls < lone.calls
    assert len({picture.tobytes() for picture in alone}) == len(asked)
