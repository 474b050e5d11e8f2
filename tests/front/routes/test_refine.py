"""The wire, against a real server with a fake engine behind it, and against whole services."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.checkpoints.catalog import load_catalog
from models.styles.presets import load_styles
from service.api_keys import KeyRecord, digest_of, write_keys
from service.engine_client.base import EngineHealth
from service.errors import (
    EngineRestarting,
    EngineStarting,
    GenerationFailed,
    QueueFull,
    RefineError,
)
from service.front.images.codec import read_metadata
from service.front.schemas.requests import MAX_SEED, SIDES
from tests.support.api import (
    PATHS,
    PICTURE,
    ROUTES,
    STAGES,
    TIMEOUT_S,
    Api,
    data_url,
    picture_of,
    size_of,
)
from tests.support.backends import Witness
from tests.support.fakes import FakeEngineClient
from tests.support.servers import KEY, MAX_BODY_BYTES, running_server, wait_until


@pytest.mark.real_engines
@pytest.mark.parametrize("path", PATHS)
def test_a_picture_comes_back_in_the_hosted_shape(api: Api, path: str) -> None:
    """On both routes, under both prefixes: 200, one JPEG data URL, nulls where they are due."""
    response = api.refine(path, requestTimestamp="2026-11-23T00:00:00Z", seed=5)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    job = response.json()["lcmGenerationJob"]
    assert job.pop("imageDataUrl")[0].startswith("data:image/jpeg;base64,")
    steps = 4 if path.endswith("/generations-lcm") else 6
    assert job == {
        "requestTimestamp": "2026-11-23T00:00:00Z",
        "apiCreditCost": None,
        "cost": None,
        "seed": 5,
        "stepsRun": steps,
        "promptTokensDropped": 0,
    }
    assert (response.headers["x-seed"], response.headers["x-steps-run"]) == ("5", str(steps))
    with Image.open(io.BytesIO(picture_of(response))) as image:
        assert (image.format, image.size) == ("JPEG", (512, 512))


def test_stages_are_told(api: Api) -> None:
    """`Server-Timing` carries each stage of the request in milliseconds."""
    header = api.refine().headers["server-timing"]
    names = [entry.partition(";dur=")[0] for entry in header.split(", ")]
    assert names == STAGES
    assert all(float(entry.partition(";dur=")[2]) >= 0 for entry in header.split(", "))


@pytest.mark.real_engines
def test_absent_fields_get_the_checkpoint_defaults(api: Api, witness: Witness) -> None:
    """What is left out is the checkpoint's default, and 512 x 512."""
    picture = picture_of(api.refine())
    params = witness.params_of(picture)
    defaults = load_catalog()["pocket"].defaults
    assert size_of(picture) == (512, 512)
    assert (params.height, params.width) == (512, 512)
    assert params.num_inference_steps == defaults.num_inference_steps
    assert params.strength == defaults.strength
    assert params.guidance_scale == defaults.guidance_scale
    assert params.prompt == "a boat"


def test_null_equals_absent(api: Api, witness: Witness) -> None:
    """The Python SDK sends nulls for what its caller left out."""
    names = ["guidance", "height", "width", "requestTimestamp", "steps", "strength", "style"]
    response = api.refine(seed=1, **dict.fromkeys([*names, "outputFormat"]))
    assert response.status_code == 200
    assert "requestTimestamp" not in response.json()["lcmGenerationJob"]
    with_nulls = witness.params_of(picture_of(response))
    assert witness.params_of(picture_of(api.refine(seed=1))) == with_nulls


@pytest.mark.parametrize(
    ("given", "echoed"), [("abc", "abc"), (1764000000000, "1764000000000"), (1.5, "1.5")]
)
def test_the_timestamp_is_echoed_as_text(api: Api, given: Any, echoed: str) -> None:
    """A number as timestamp would make the SDK drop the picture: it comes back as text."""
    job = api.refine(requestTimestamp=given).json()["lcmGenerationJob"]
    assert job["requestTimestamp"] == echoed


@pytest.mark.parametrize("seed", [0, 2**32 + 3, MAX_SEED])
def test_a_seed_is_echoed_whole(api: Api, witness: Witness, seed: int) -> None:
    """Seeds over 2^32 reach the engine and the answer unchanged."""
    response = api.refine(seed=seed)
    assert response.json()["lcmGenerationJob"]["seed"] == seed
    assert witness.params_of(picture_of(response)).seeds == (seed,)


def test_a_seed_is_drawn_and_told(api: Api, witness: Witness) -> None:
    """Without a seed every request gets its own, which the answer tells."""
    seeds = []
    for _ in range(4):
        response = api.refine()
        seeds.append(response.json()["lcmGenerationJob"]["seed"])
        assert witness.params_of(picture_of(response)).seeds == (seeds[-1],)
    assert len(set(seeds)) == 4


GOOD = [
    {"guidance": 0.5}, {"guidance": 20}, {"guidance": 7.25},
    {"steps": 4}, {"steps": 16}, {"strength": 0.1}, {"strength": 1},
    {"prompt": ""}, {"prompt": "x" * 1500}, {"prompt": "\U0001f469‍\U0001f680 héllo\n\t"},
    {"prompt": "{prompt} {{7*7}} %s <|endoftext|>"},
    *({"height": height, "width": width} for height in SIDES for width in SIDES),
    *({"style": style} for style in load_styles()),
]  # fmt: skip


@pytest.mark.parametrize("fields", GOOD, ids=lambda fields: json.dumps(fields)[:40])
def test_what_is_inside_the_bounds_is_taken(
    api: Api, witness: Witness, fields: dict[str, Any]
) -> None:
    """Each end of each bound, each shape, each style gives a picture of the asked size."""
    response = api.refine(**fields)
    assert response.status_code == 200, response.text
    picture = picture_of(response)
    params = witness.params_of(picture)
    size = (fields.get("width", 512), fields.get("height", 512))
    assert (params.width, params.height) == size_of(picture) == size
    style = load_styles()[fields.get("style", "NONE")]
    assert params.prompt == style.apply(fields.get("prompt", "a boat"))


BAD: list[tuple[str, Any]] = [
    *(("steps", value) for value in (3, 17, 4.0, 4.5, "4", True, -0.0, 2**63, 2**65, [4])),
    *(("strength", value) for value in (0.09, 1.01, "0.5", False, float("nan"), float("inf"))),
    *(("guidance", value) for value in (0.49, 20.1, "7", True, float("-inf"))),
    *(("height", value) for value in (511, 513, 0, -512, 512.0, "512", True, 4096)),
    *(("width", value) for value in [768, 640.0, "640"]),
    *(("seed", value) for value in (-1, MAX_SEED + 1, 1.0, "7", 10**30)),
    *(("prompt", value) for value in (None, 7, "x" * 1501, "a\0b", "\x1b[31m", "\ud800", ["a"])),
    *(("style", value) for value in ("anime", "", "../x", 3)),
    *(("outputFormat", value) for value in ("gif", "JPEG", 1)),
    *(("requestTimestamp", value) for value in (True, [1], "x" * 65, float("nan"), "\0")),
    *(("imageDataUrl", value) for value in (None, 5, ["x"])),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_what_is_outside_the_bounds_is_refused_by_name(
    api: Api, witness: Witness, name: str, value: Any
) -> None:
    """Wrong types and values are told with the field and what it must be; nothing is coerced."""
    body = json.dumps({"imageDataUrl": PICTURE, "prompt": "a boat", name: value})
    response = api.http.post(ROUTES[0], content=body, headers={"content-type": "application/json"})
    sentence = api.refused(response, 400, "validation-failed", f"$.{name}")
    assert sentence.startswith(f"{name} must be ")
    assert witness.num_asked == 0


@pytest.mark.real_engines
@pytest.mark.parametrize("name", ["imageDataUrl", "prompt"])
def test_a_missing_field_is_named(api: Api, name: str) -> None:
    """Both required fields are asked for by name."""
    body = {"imageDataUrl": PICTURE, "prompt": "a boat"}
    del body[name]
    sentence = api.refused(
        api.http.post(ROUTES[0], json=body), 400, "validation-failed", f"$.{name}"
    )
    assert sentence == f"{name} is required"


def test_a_misspelt_field_is_refused_with_the_right_one(api: Api) -> None:
    """`strenght` must not pass in silence; nor does a name that could be an attack come back."""
    sentence = api.refused(api.refine(strenght=0.5), 400, "bad-request", "$.strenght")
    assert "did you mean strength?" in sentence
    sentence = api.refused(api.refine(**{"<script>": 1}), 400, "bad-request")
    assert "script" not in sentence


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b'"x"', b"null", b"{", b"{} x", b"\xff\xfe", b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"), b'{"prompt":"a\nb"}', b"[" * 100_000, b'{"a":' * 30_000,
        b'{"prompt":"a","prompt":"b"}', b'{"imageDataUrl":"x","prompt":"a","\\ud800":1}',
    ],
    ids=range(14),
)  # fmt: skip
def test_what_is_not_one_json_object_is_refused(api: Api, body: bytes) -> None:
    """Broken, doubled, deep or foreign JSON is a bad request, and quickly so."""
    response = api.http.post(ROUTES[0], content=body, headers={"content-type": "application/json"})
    api.refused(response, 400, "bad-request")


@pytest.mark.parametrize("content_type", [None, "text/plain", "multipart/form-data", "image/png"])
def test_only_json_is_taken(api: Api, content_type: str | None) -> None:
    """A form or a file is refused before it is read."""
    headers = {} if content_type is None else {"content-type": content_type}
    response = api.http.post(ROUTES[0], content=b"{}", headers=headers)
    api.refused(response, 415, "unsupported-media-type")


def test_json_with_a_charset_is_taken_and_compression_is_not(api: Api) -> None:
    """A charset parameter is common; a compressed body could be a bomb."""
    body = json.dumps({"imageDataUrl": PICTURE, "prompt": "a"})
    headers = {"content-type": "application/json; charset=utf-8"}
    assert api.http.post(ROUTES[0], content=body, headers=headers).status_code == 200
    headers["content-encoding"] = "gzip"
    response = api.http.post(ROUTES[0], content=body, headers=headers)
    api.refused(response, 415, "unsupported-media-type")


@pytest.mark.real_engines
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_the_cap_is_refused(api: Api, *, is_chunked: bool) -> None:
    """With and without a Content-Length the cap holds."""
    body = b"x" * (MAX_BODY_BYTES + 1)
    content = iter([body]) if is_chunked else body
    response = api.http.post(
        ROUTES[0], content=content, headers={"content-type": "application/json"}
    )
    api.refused(response, 413, "body-too-large")


@pytest.mark.parametrize(
    "value",
    ["", "data:image/png;base64,", "hello world", "http://127.0.0.1:1/x.png", "/etc/passwd"],
)
def test_what_is_no_picture_is_refused(api: Api, value: str) -> None:
    """Neither an address nor a path is followed: only bytes of a picture count."""
    api.refused(api.refine(imageDataUrl=value), 400, "image-invalid", "$.imageDataUrl")


@pytest.mark.real_engines
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x"],
)
def test_without_the_key_nothing_is_read(api: Api, header: str | None) -> None:
    """No key, a wrong one or another scheme: 401, however broken the body is."""
    headers = {} if header is None else {"authorization": header}
    response = httpx.post(api.url + ROUTES[0], content=b"\xff", headers=headers)
    api.refused(response, 401, "access-denied")
    assert response.headers["www-authenticate"] == "Bearer"


def test_each_key_is_taken_and_the_scheme_in_any_case(api: Api) -> None:
    """All keys of the list hold; a doubled header does not, nor does one with foreign letters."""
    body = {"imageDataUrl": PICTURE, "prompt": ""}
    for header in ("Bearer another", f"bearer {KEY}"):
        given = {"authorization": header}
        response = httpx.post(api.url + ROUTES[0], json=body, headers=given, timeout=TIMEOUT_S)
        assert response.status_code == 200
    twice = [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")]
    assert httpx.post(api.url + ROUTES[0], json=body, headers=twice).status_code == 401
    foreign = {b"authorization": "Bearer é".encode()}
    assert httpx.post(api.url + ROUTES[0], json=body, headers=foreign).status_code == 401


def test_every_route_asks_for_the_key_but_those_that_say_nothing(api: Api) -> None:
    """The routes are found in the application itself: a new one cannot forget its key."""
    open_paths = {"/health/live", "/health/ready"}
    document = httpx.get(api.url + "/openapi.json").json()
    assert len(document["paths"]) >= 6
    for path, methods in document["paths"].items():
        for method in methods:
            status = httpx.request(method.upper(), api.url + path).status_code
            assert status == (200 if path in open_paths else 401), path


def test_without_keys_only_this_machine_s_names_are_answered() -> None:
    """Against DNS rebinding: another site's name is refused, one that is listed is not."""
    with running_server(allowed_hosts="canvas.example") as url:
        for host, status in [
            ("localhost", 200), ("LOCALHOST:99", 200), ("127.0.0.1", 200), ("[::1]:8000", 200),
            ("canvas.example", 200), ("evil.example", 400), ("127.0.0.1.evil.example", 400),
        ]:  # fmt: skip
            assert httpx.get(url + "/health/live", headers={"host": host}).status_code == status
    with running_server(api_keys=KEY) as url:
        answer = httpx.get(url + "/health/live", headers={"host": "any.example"})
        assert answer.status_code == 200


def test_a_trailing_slash_is_no_redirect(api: Api) -> None:
    """A redirect would be built from the Host header: there is nothing at that path."""
    api.refused(api.http.post(ROUTES[0] + "/", json={}), 404, "not-found")


def test_unknown_paths_and_methods_are_told(api: Api) -> None:
    """404 and 405 have the common shape, the latter with `Allow`."""
    api.refused(api.http.get("/nothing"), 404, "not-found")
    response = api.http.get(ROUTES[0])
    api.refused(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (QueueFull("full", retry_after_s=7), 503),
        (EngineStarting("starting", retry_after_s=5), 503),
        (GenerationFailed("this picture could not be made"), 500),
    ],
)
def test_the_engine_s_refusals_reach_the_caller(
    api: Api, engine: FakeEngineClient, error: RefineError, status: int
) -> None:
    """Each with its code, and with `Retry-After` where trying again helps."""
    engine.refusals.append(error)
    response = api.refine()
    api.refused(response, status, error.code)
    expected = None if error.retry_after_s is None else str(error.retry_after_s)
    assert response.headers.get("retry-after") == expected
    assert api.refine().status_code == 200


def test_a_job_lost_with_its_engine_runs_once_more(api: Api, engine: FakeEngineClient) -> None:
    """The caller gets the picture, of the same seed; a second loss is told."""
    lost = EngineRestarting("the engine ended in the middle", retry_after_s=5)
    engine.refusals.append(lost)
    answer = api.refine()
    assert answer.status_code == 200
    first, second = (asked[0] for asked in engine.asked)
    assert first == second
    engine.refusals.extend([lost, lost])
    response = api.refine()
    api.refused(response, 503, "engine-restarting")
    assert response.headers["retry-after"] == "5"


def test_the_unforeseen_is_told_without_its_inside(
    api: Api, engine: FakeEngineClient, capfd: pytest.CaptureFixture[str]
) -> None:
    """A bug answers 500 with an id that stands in the log beside the trace."""
    engine.refusals.append(ZeroDivisionError("secret inside"))  # type: ignore[arg-type]
    response = api.refine()
    sentence = api.refused(response, 500, "unexpected")
    assert response.headers["x-request-id"] in sentence
    assert "secret" not in response.text
    logged = capfd.readouterr()
    assert response.headers["x-request-id"] in logged.out + logged.err


@pytest.mark.parametrize(
    ("given", "is_kept"), [("abc-123", True), ("a b", False), ("x" * 65, False)]
)
def test_the_request_id_is_echoed_when_it_is_harmless(
    api: Api, given: str, *, is_kept: bool
) -> None:
    """A caller's own id is kept; what could be an injection is replaced."""
    response = api.http.get("/health/live", headers={"x-request-id": given})
    assert (response.headers["x-request-id"] == given) == is_kept


def test_the_deadline_can_be_shortened(api: Api, engine: FakeEngineClient) -> None:
    """`X-Request-Timeout-Ms` bounds the request: 504, and the engine is told to stop."""
    deadline_s = 1.5  # a busy machine must have come to the engine by then
    engine.is_open.clear()
    before = engine.num_aborted
    try:
        response = api.http.post(
            ROUTES[0],
            json={"imageDataUrl": PICTURE, "prompt": ""},
            headers={"x-request-timeout-ms": f"{1000 * deadline_s:.0f}"},
        )
    finally:
        engine.is_open.set()
    api.refused(response, 504, "deadline-exceeded")
    assert engine.num_aborted == before + 1
    assert engine.asked[-1][2] < deadline_s
    for value in ("0", "-5", "soon", "1e3", ""):
        response = api.http.post(ROUTES[0], json={}, headers={"x-request-timeout-ms": value})
        api.refused(response, 400, "bad-request")


def test_a_caller_who_goes_frees_the_engine(api: Api, engine: FakeEngineClient) -> None:
    """When the connection closes in the middle, the job is aborted."""
    engine.is_open.clear()
    before = engine.num_aborted
    host, port = api.url.removeprefix("http://").split(":")
    body = json.dumps({"imageDataUrl": PICTURE, "prompt": ""}).encode()
    head = (
        f"POST {ROUTES[0]} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        wait_until(lambda: len(engine.asked) == 1, 5)
    wait_until(lambda: engine.num_aborted == before + 1, 5)
    engine.is_open.set()


@pytest.mark.real_engines
@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
def test_the_picture_tells_its_parameters_and_nothing_of_the_input(
    api: Api, output_format: str
) -> None:
    """The output holds what it takes to make it again, and none of the input's metadata."""
    source = Image.new("RGB", (512, 512), (10, 20, 30))
    exif = source.getexif()
    exif[0x010E] = "where I live"
    file = io.BytesIO()
    source.save(file, "JPEG", exif=exif, comment=b"where I live")
    url = base64.b64encode(file.getvalue()).decode()
    response = api.refine(
        imageDataUrl=url, style="ANIME", seed=9, strength=0.25, outputFormat=output_format
    )
    picture = picture_of(response)
    assert b"where I live" not in picture
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == output_format.upper()
    assert read_metadata(picture) == {
        "model": "pocket", "prompt": "a boat", "style": "ANIME", "steps": 6, "stepsRun": 6,
        "strength": 0.25, "guidance": 6.0, "seed": 9, "autoencoder": "full",
        "width": 512, "height": 512,
    }  # fmt: skip


def test_a_picture_of_the_asked_size_reaches_the_engine_unchanged(
    api: Api, engine: FakeEngineClient
) -> None:
    """With `NONE` and the right size neither prompt nor pixels are touched, and PNG is exact."""
    pixels = np.random.default_rng(0).integers(0, 256, (640, 512, 3), dtype=np.uint8)
    url = data_url(Image.fromarray(pixels).quantize(64).convert("RGB"))
    response = api.refine(imageDataUrl=url, height=640, width=512, outputFormat="png")
    _, image, _ = engine.asked[-1]
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as sent:
        np.testing.assert_array_equal(image, np.asarray(sent))
    with Image.open(io.BytesIO(picture_of(response))) as answered:
        np.testing.assert_array_equal(255 - np.asarray(answered), image)


@pytest.mark.real_engines
def test_styles_and_models_are_listed(api: Api) -> None:
    """What a caller can choose is told by the service itself."""
    styles = api.http.get("/v1/styles").json()["styles"]
    assert [style["name"] for style in styles] == list(load_styles())
    models = {model["id"]: model for model in api.http.get("/v1/models").json()["models"]}
    assert models["pocket"]["loaded"]
    assert models["pocket"]["device"] == "cpu"
    assert not models["lcm-dreamshaper-v7"]["loaded"]


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        (EngineHealth("starting", "loading"), "starting: loading"),
        (EngineHealth("restarting", "loading"), "starting again"),
        (EngineHealth("failed", "none"), "could not start"),
    ],
)
def test_readiness_tells_its_reason(
    api: Api, engine: FakeEngineClient, health: EngineHealth, reason: str
) -> None:
    """Readiness is the engine's, liveness the front's own."""
    assert api.http.get("/health/ready").json()["ready"]
    usual, engine.health = engine.health, health
    response = httpx.get(api.url + "/health/ready")
    engine.health = usual
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert reason in response.json()["reason"]


def test_the_documents_need_no_network(api: Api) -> None:
    """`/docs` and what it loads come from this server alone, and the examples are valid."""
    page = httpx.get(api.url + "/docs").text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    for link in links:
        assert link.startswith("/"), link
        assert httpx.get(api.url + link).status_code == 200
    assert "http" not in page.replace("http-equiv", "")
    document = httpx.get(api.url + "/openapi.json").json()
    for route in ROUTES:
        content = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]
        assert api.http.post(route, json=content["example"]).status_code == 200


def test_a_caller_over_its_limits_waits_and_others_do_not(tmp_path: Path) -> None:
    """429 with whole seconds for the key that is over its number or rate, 200 for another one."""
    engine, file = FakeEngineClient(), tmp_path / "keys"
    write_keys(
        file,
        [
            KeyRecord("narrow", digest_of("narrow"), "concurrent=1"),
            KeyRecord("rare", digest_of("rare"), "rate=1/h"),
        ],
    )
    with running_server(engine, keys_file=file, api_keys=KEY) as url, ExitStack() as stack:
        keys = ("narrow", "rare", KEY)
        apis = {key: stack.enter_context(Api(url, key)) for key in keys}
        assert apis["rare"].refine().status_code == 200
        response = apis["rare"].refine()
        apis["rare"].refused(response, 429, "rate-limited")
        assert int(response.headers["retry-after"]) in (3599, 3600)
        engine.is_open.clear()
        running = threading.Thread(target=apis["narrow"].refine)
        running.start()
        wait_until(lambda: len(engine.asked) == 2, 10)
        response = stack.enter_context(Api(url, "narrow")).refine()
        apis["narrow"].refused(response, 429, "rate-limited")
        assert int(response.headers["retry-after"]) >= 1
        engine.is_open.set()
        running.join(10)
        assert apis[KEY].refine().status_code == apis["narrow"].refine().status_code == 200


def test_a_removed_key_ends_within_five_seconds(tmp_path: Path) -> None:
    """A file of keys holds as it stands: a new key at once, a removed one not for long."""
    engine, file = FakeEngineClient(), tmp_path / "keys"
    write_keys(file, [KeyRecord("a", digest_of("old"))])
    with running_server(engine, keys_file=file) as url, ExitStack() as stack:
        old, new = (stack.enter_context(Api(url, key)) for key in ("old", "new"))
        assert (old.refine().status_code, new.refine().status_code) == (200, 401)
        write_keys(file, [KeyRecord("a", digest_of("new"))])
        wait_until(lambda: old.refine().status_code == 401, 5)
        assert new.refine().status_code == 200
