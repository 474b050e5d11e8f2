"""The fields that are ours beside the hosted ones, and what the answer tells of a request."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks.soak.picture_files import scene
from models.checkpoints.catalog import load_catalog
from service.cli.main import app
from service.front.images.codec import read_metadata
from service.front.schemas.requests import MAX_SEED
from service.protocol.jobs import Finished
from tests.support.api import ROUTES, Api, data_url, picture_of
from tests.support.fakes import FakeEngineClient
from tests.support.servers import running_server

NEGATIVE = "blurred"


class ToldEngine(FakeEngineClient):
    """Says of its pictures what it is told to say."""

    def __init__(self, **told: Any) -> None:
        super().__init__()
        self.told = told

    async def generate(self, *arguments: Any, **named: Any) -> Finished:
        return dataclasses.replace(await super().generate(*arguments, **named), **self.told)


def answered(told: dict[str, Any], settings: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Ask a server whose engine says `told`; return the job of its answer."""
    engine = ToldEngine(**told)
    with running_server(engine, **settings) as url:
        api = Api(url)
        with api.http:
            response = api.refine(**fields)
        assert response.status_code == 200, response.text
        job: dict[str, Any] = response.json()["lcmGenerationJob"]
        return job


@pytest.mark.real_engines
@pytest.mark.parametrize("seed", [5, MAX_SEED - 1])
def test_several_images_have_a_seed_each(api: Api, seed: int) -> None:
    """`numImages` rows of one job, each of the next seed within the bound, each told of its own."""
    response = api.refine(numImages=4, seed=seed)
    seeds = [(seed + row) % (MAX_SEED + 1) for row in range(4)]
    job = response.json()["lcmGenerationJob"]
    assert (job["seed"], job["seeds"]) == (seed, seeds)
    files = [base64.b64decode(url.partition(",")[2]) for url in job["imageDataUrl"]]
    told = [read_metadata(file) for file in files]
    assert [parameters and parameters["seed"] for parameters in told] == seeds
    assert "seeds" not in api.refine().json()["lcmGenerationJob"]


def test_several_images_share_a_mask(api: Api, engine: FakeEngineClient) -> None:
    """Each picture of an inpainting keeps the black area; an upscale is one picture."""
    fields = {"imageDataUrl": data_url(scene(64, 64)), "numImages": 2, "outputFormat": "png"}
    mask = data_url(Image.new("L", (64, 64), 0))
    response = api.refine("/lcm-inpainting", maskDataUrl=mask, **fields)
    first, second = response.json()["lcmGenerationJob"]["imageDataUrl"]
    (image,) = [asked[1] for asked in engine.asked[-1:]]
    for url in (first, second):
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as picture:
            assert (image == picture).all()
    refused = api.refine("/lcm-upscale", numImages=2)
    assert "numImages must be 1" in api.refused(refused, 400, "validation-failed", "$.numImages")


def test_quality_is_the_callers(api: Api) -> None:
    """A lower `outputQuality` gives a smaller file; where it means nothing, that is told."""
    fields = {"imageDataUrl": data_url(scene(512, 512))}
    sizes = [len(picture_of(api.refine(outputQuality=quality, **fields))) for quality in (30, 95)]
    assert 2 * sizes[0] < sizes[1]
    job = api.refine(outputQuality=30, outputFormat="png").json()["lcmGenerationJob"]
    (adjustment,) = job["adjustments"]
    assert (adjustment["field"], adjustment["asked"], adjustment["used"]) == (
        "outputQuality", 30, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "fields", "adjustment"),
    [
        ({"num_steps_run": 5}, {"steps": 16, "strength": 0.1}, ("steps", 16, 5)),
        ({"guidance_scale": 1.4}, {"guidance": 8}, ("guidance", 8, 1.4)),
        ({}, {"negativePrompt": NEGATIVE}, ("negativePrompt", NEGATIVE, None)),
        ({"reads_negative_prompt": True}, {"negativePrompt": NEGATIVE}, None),
        ({}, {"autoencoder": "tiny"}, ("autoencoder", "tiny", "full")),
        ({"autoencoder": "tiny"}, {"autoencoder": "tiny"}, None),
        ({}, {}, None),
    ],
)
def test_what_was_not_done_as_asked_is_told(
    told: dict[str, Any], fields: dict[str, Any], adjustment: tuple[Any, ...] | None
) -> None:
    """Clamped, mapped or ignored: the answer names the field, and what became of it."""
    job = answered(told, {}, **fields)
    if adjustment is None:
        assert "adjustments" not in job
    else:
        (only,) = job["adjustments"]
        assert only.pop("reason")
        assert tuple(only.values()) == adjustment


def test_a_negative_prompt_that_was_read_is_in_the_picture() -> None:
    """The parameters in a picture are those that made it."""
    fields = {"negativePrompt": NEGATIVE, "seed": 1}
    for is_read in (True, False):
        job = answered({"reads_negative_prompt": is_read}, {}, **fields)
        told = read_metadata(base64.b64decode(job["imageDataUrl"][0].partition(",")[2]))
        assert told is not None
        assert told.get("negativePrompt") == (NEGATIVE if is_read else None)


@pytest.mark.parametrize(
    ("price", "cost"),
    [(0.0, None), (3.0, {"amount": "0.00003", "unit": "DOLLARS"})],
)
def test_cost_is_the_devices_time_at_the_operators_price(price: float, cost: Any) -> None:
    """36 ms at 3 dollars an hour are 0.00003; credits stay null, which the SDKs need."""
    job = answered({"device_ms": 36.0}, {"gpu_price_per_hour": price})
    assert (job["cost"], job["apiCreditCost"]) == (cost, None)


def test_each_route_has_its_own_defaults(api: Api, engine: FakeEngineClient) -> None:
    """The live pass is for latency, the refine for quality; `/v1/models` has the same table."""
    pocket = load_catalog()["pocket"]
    listed = api.http.get("/v1/models").json()["models"]
    every = {model["id"]: model["defaults"] for model in listed}
    told = every["pocket"]
    for route, defaults in zip(ROUTES, (pocket.defaults, pocket.defaults_of("live")), strict=True):
        api.refine(route)
        params, _, _ = engine.asked[-1]
        assert params.num_inference_steps == defaults.num_inference_steps == told[route]["steps"]
        assert params.autoencoder == defaults.autoencoder == told[route]["autoencoder"]
    assert told["/generations-lcm"]["steps"] < told["/lcm-instant-refine"]["steps"]
    assert every["sd15-lcm-lora"]["/generations-lcm"]["autoencoder"] == "tiny"
    assert told["/generations-lcm"]["autoencoder"] == "full", "pocket has no tiny one"
    api.refine("/lcm-upscale")
    upscale = told["/lcm-upscale"]
    assert engine.asked[-1][0].strength == upscale["strength"]
    fields = {name: upscale[name] for name in ("refineStrength", "refineCreative")}
    api.refine("/lcm-upscale", **fields)
    assert engine.asked[-1][0].strength == upscale["strength"]
    api.refine("/generations-lcm", steps=9, autoencoder="full")
    assert engine.asked[-1][0].num_inference_steps == 9
    assert engine.asked[-1][0].autoencoder == "full"


def test_a_model_is_a_key_of_a_table(api: Api) -> None:
    """What is loaded can be chosen; a path, a hub id or nonsense names nothing."""
    assert api.refine(modelId="pocket").status_code == 200
    for name in ("../pocket", "/etc/passwd", "C:\\x", "a/b@c", "pocket.", "x" * 200, "%2e%2e/"):
        sentence = api.refused(api.refine(modelId=name), 400, "validation-failed", "$.modelId")
        assert sentence == "modelId must be one of pocket"
    for name in ("", "x" * 201, "a\0b"):
        api.refused(api.refine(modelId=name), 400, "validation-failed", "$.modelId")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("numImages", 0), ("numImages", 5), ("numImages", 2.0), ("numImages", True),
        ("outputQuality", 0), ("outputQuality", 101), ("autoencoder", "taesd"),
        ("negativePrompt", "x" * 1501), ("negativePrompt", "a\0b"), ("modelId", 3),
    ],
)  # fmt: skip
def test_our_fields_have_bounds(api: Api, name: str, value: Any) -> None:
    """They are as strict as the hosted ones."""
    sentence = api.refused(api.refine(**{name: value}), 400, "validation-failed", f"$.{name}")
    assert sentence.startswith(f"{name} must be ")


def test_our_fields_are_documented_and_refused_when_misspelt(api: Api) -> None:
    """The API's document says that they are ours; a near miss is told the right name."""
    document = api.http.get("/openapi.json").json()
    body = document["paths"]["/lcm-instant-refine"]["post"]["requestBody"]
    properties = body["content"]["application/json"]["schema"]["properties"]
    ours = ["numImages", "outputFormat", "outputQuality", "negativePrompt", "modelId"]
    for name in [*ours, "autoencoder"]:
        assert "an extension of this service" in properties[name]["description"]
        sentence = api.refused(api.refine(**{name + "s": 1}), 400, "bad-request", f"$.{name}s")
        assert sentence.endswith(f"did you mean {name}?")


@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
def test_a_picture_tells_of_its_making_at_the_command_line(
    api: Api, output_format: str, tmp_path: Path
) -> None:
    """`instant-refine inspect` prints what the answer embedded; another picture has none."""
    picture = tmp_path / "picture"
    picture.write_bytes(picture_of(api.refine(seed=3, outputFormat=output_format)))
    told = CliRunner().invoke(app, ["inspect", str(picture)])
    assert json.loads(told.stdout)["seed"] == 3
    Image.new("RGB", (8, 8)).save(picture, output_format.upper())
    assert CliRunner().invoke(app, ["inspect", str(picture)]).exit_code == 1
