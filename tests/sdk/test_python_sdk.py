"""The official Python client, unmodified, holds the server to its contract."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from leonardo_ai_sdk import LeonardoAiSDK
from leonardo_ai_sdk.models import errors, operations, shared
from leonardo_ai_sdk.utils import BackoffStrategy, RetryConfig
from leonardo_ai_sdk.utils.unmarshal_json_response import unmarshal_json_response
from pydantic.alias_generators import to_snake

from models.checkpoints.catalog import Defaults, Pace, load_catalog
from models.styles.presets import load_styles
from service.errors import QueueFull
from tests.support import sdk_wire as wire
from tests.support.backends import Witness
from tests.support.fakes import FakeEngineClient
from tests.support.sdk_wire import ALL, LEAST, NULLS, PREFIXES, ROUTES
from tests.support.servers import KEY, running_server

METHODS = {
    "/lcm-instant-refine": "perform_instant_refine",
    "/generations-lcm": "create_lcm_generation",
    "/lcm-inpainting": "perform_inpainting_lcm",
    "/lcm-upscale": "perform_alchemy_upscale_lcm",
}
ANSWERS = {
    "/lcm-instant-refine": operations.PerformInstantRefineResponseBody,
    "/generations-lcm": operations.CreateLCMGenerationResponseBody,
}
# Waits a millisecond where the server names no time, and gives up after five seconds.
RETRIES = RetryConfig("backoff", BackoffStrategy(1, 1, 1.0, 5000), False)
RETRY_AFTER_S = 1


def call(address: str, route: str, fields: dict[str, Any], **options: Any) -> Any:
    """Call a route as the SDK's documents do: with an address, a key and a dictionary."""
    with LeonardoAiSDK(bearer_auth=KEY, server_url=address) as sdk:
        method = getattr(sdk.realtime_canvas, METHODS[route])
        return method(request={to_snake(name): value for name, value in fields.items()}, **options)


@dataclass
class Watched:
    """An SDK that retries, and the times at which it sent."""

    address: str
    key: str = KEY
    sent_at_s: list[float] = field(default_factory=list)

    def call(self, route: str, fields: dict[str, Any]) -> Any:
        hooks: dict[str, list[Callable[..., Any]]] = {
            "request": [lambda _: self.sent_at_s.append(time.monotonic())]
        }
        with httpx.Client(event_hooks=hooks) as http:
            sdk = LeonardoAiSDK(
                self.key, server_url=self.address, client=http, retry_config=RETRIES
            )
            method = getattr(sdk.realtime_canvas, METHODS[route])
            return method(request={to_snake(name): value for name, value in fields.items()})


def test_the_referee_is_the_contract_s() -> None:
    """The SDK is of the version that the contract names."""
    assert version("Leonardo-Ai-SDK") == "7.0.0"


@pytest.mark.real_engines
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("route", ROUTES)
def test_a_picture_comes_back(address: str, witness: Witness, route: str, prefix: str) -> None:
    """Given every field, exactly 200 comes back with one picture and all that the SDK types."""
    response = call(address + prefix, route, ALL)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.raw_response.history == []
    job = response.object.lcm_generation_job.model_dump(by_alias=True)
    assert job.keys() == wire.TYPED_FIELDS
    assert job["requestTimestamp"] == ALL["requestTimestamp"]
    assert json.loads(response.raw_response.text)["lcmGenerationJob"]["seed"] == ALL["seed"]
    wire.check_picture(job, witness)
    wire.check_all_reached_the_engine(job, witness)


@pytest.mark.parametrize("route", ROUTES)
def test_the_picture_is_made_of_the_one_that_was_sent(
    address: str, engine: FakeEngineClient, route: str
) -> None:
    """The engine gets the caller's picture, and the caller what the engine makes of it."""
    job = call(address, route, ALL).object.lcm_generation_job
    wire.check_the_negative(job.model_dump(by_alias=True), engine)


@pytest.mark.real_engines
def test_inpainting_takes_a_mask(address: str, witness: Witness) -> None:
    """With a white mask the whole picture is repainted, and the job is of the usual shape."""
    job = call(address, "/lcm-inpainting", wire.INPAINT).object.lcm_generation_job
    wire.check_picture(job.model_dump(by_alias=True), witness)


@pytest.mark.real_engines
def test_an_upscale_comes_back_twice_as_large_with_its_ids(address: str, witness: Witness) -> None:
    """1024 x 1024 for 512 x 512, and the ids that the SDK types for this route."""
    job = call(address, "/lcm-upscale", wire.UPSCALE).object.lcm_generation_job
    fields = job.model_dump(by_alias=True)
    assert fields.keys() >= wire.UPSCALE_FIELDS
    assert all(fields[name] for name in wire.UPSCALE_FIELDS)
    assert wire.size_of(fields) == (1024, 1024)
    assert witness.num_asked == 1


def test_the_typed_attributes_are_set(address: str, witness: Witness) -> None:
    """Each attribute of the SDK's job was in the answer: none stands at the SDK's own default."""
    job = call(address, ROUTES[0], ALL).object.lcm_generation_job
    assert job.model_fields_set == set(type(job).model_fields)
    assert len(job.image_data_url) == witness.num_asked
    assert job.request_timestamp == ALL["requestTimestamp"]
    assert job.cost is None
    with pytest.deprecated_call(match="DEPRECATED"):  # by the SDK, in favour of cost
        assert job.api_credit_cost is None


@pytest.mark.parametrize("route", ROUTES)
def test_the_asynchronous_client_gets_it_too(address: str, witness: Witness, route: str) -> None:
    """The SDK's other half, over its asynchronous client, gets the same picture."""
    sdk = LeonardoAiSDK(bearer_auth=KEY, server_url=address)
    request = {to_snake(name): value for name, value in ALL.items()}

    async def ask() -> Any:
        async with sdk:
            return await getattr(sdk.realtime_canvas, METHODS[route] + "_async")(request=request)

    response = asyncio.run(ask())
    assert response.status_code == 200
    wire.check_picture(response.object.lcm_generation_job.model_dump(by_alias=True), witness)


@pytest.mark.parametrize("route", ROUTES)
def test_the_least_request_is_told_its_seed(address: str, witness: Witness, route: str) -> None:
    """With picture and prompt alone: the defaults, no timestamp, and the seed that was drawn."""
    response = call(address, route, LEAST)
    sent = json.loads(response.raw_response.request.content)
    assert sent == LEAST | {"height": 512, "width": 512}
    job = response.object.lcm_generation_job
    assert job.request_timestamp is None
    wire.check_picture(job.model_dump(by_alias=True), witness)
    wire.check_seed_is_told(response.raw_response.text, witness)


def _defaults_of(route: str) -> Defaults:
    pace: Pace = "live" if route == "/generations-lcm" else "refine"
    return load_catalog()["pocket"].defaults_of(pace)


@pytest.mark.parametrize("route", ROUTES)
def test_nulls_are_absent(address: str, witness: Witness, route: str) -> None:
    """The nulls that the SDK sends for what is None get the checkpoint's defaults."""
    response = call(address, route, NULLS)
    assert json.loads(response.raw_response.request.content) == NULLS
    job = response.object.lcm_generation_job.model_dump(by_alias=True)
    wire.check_picture(job, witness)
    params, defaults = wire.the_asked(job, witness), _defaults_of(route)
    assert (params.height, params.width) == (512, 512)
    assert params.num_inference_steps == defaults.num_inference_steps
    assert params.strength == defaults.strength
    assert params.guidance_scale == defaults.guidance_scale
    assert params.prompt == NULLS["prompt"]
    wire.check_seed_is_told(response.raw_response.text, witness)


@pytest.mark.parametrize(("given", "echoed"), [(1_767_323_045_678, "1767323045678"), (0.5, "0.5")])
@pytest.mark.parametrize("route", ROUTES)
def test_a_number_for_a_timestamp_comes_back_as_text(
    address: str, route: str, given: float, echoed: str
) -> None:
    """A numeric timestamp, which other clients send, is echoed as text that the SDK can read."""
    headers = {"Authorization": f"Bearer {KEY}"}
    fields = LEAST | {"requestTimestamp": given}
    response = httpx.post(address + route, json=fields, headers=headers, timeout=240)
    assert response.json()["lcmGenerationJob"]["requestTimestamp"] == echoed
    job = unmarshal_json_response(ANSWERS[route], response).lcm_generation_job
    assert job.request_timestamp == echoed
    assert wire.cut(job.model_dump(by_alias=True))


@pytest.mark.parametrize("part", wire.BROKEN_ANSWERS)
@pytest.mark.parametrize("route", ROUTES)
def test_the_sdk_would_drop_a_broken_job(route: str, part: dict[str, Any]) -> None:
    """One value of the wrong type loses the picture in silence: these tests would notice."""
    sound = httpx.Response(200, text=wire.answer_with({}))
    assert unmarshal_json_response(ANSWERS[route], sound).lcm_generation_job
    broken = httpx.Response(200, text=wire.answer_with(part))
    assert not unmarshal_json_response(ANSWERS[route], broken).lcm_generation_job


@pytest.mark.real_engines
@pytest.mark.parametrize(("name", "value"), wire.OUT_OF_BOUNDS)
@pytest.mark.parametrize("route", ROUTES)
def test_out_of_bounds_is_final(
    address: str, witness: Witness, route: str, name: str, value: float
) -> None:
    """A 400 raises the SDK's error, which names field and bound; it is not sent again."""
    watched = Watched(address)
    with pytest.raises(errors.SDKError, match=f"{name} must be") as raised:
        watched.call(route, ALL | {name: value})
    assert raised.value.status_code == 400
    wire.check_refusal(raised.value.body, "validation-failed", f"$.{name}")
    assert len(watched.sent_at_s) == 1
    assert witness.num_asked == 0


@pytest.mark.real_engines
@pytest.mark.parametrize("route", ROUTES)
def test_a_wrong_key_is_final(address: str, witness: Witness, route: str) -> None:
    """A 401 raises the SDK's error; it is not sent again."""
    watched = Watched(address, key="a-wrong-key")
    with pytest.raises(errors.SDKError, match="a valid key is required") as raised:
        watched.call(route, LEAST)
    assert raised.value.status_code == 401
    assert raised.value.headers["www-authenticate"] == "Bearer"
    wire.check_refusal(raised.value.body, "access-denied")
    assert len(watched.sent_at_s) == 1
    assert witness.num_asked == 0


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [("a-wrong-key", 401, "access-denied"), (KEY, 413, "body-too-large")],
)
def test_a_refusal_before_the_body_is_read_arrives(
    address: str, key: str, status: int, code: str
) -> None:
    """A caller who still sends megabytes gets the refusal, not a broken connection."""
    watched = Watched(address, key)
    with pytest.raises(errors.SDKError) as raised:
        watched.call(ROUTES[0], wire.TOO_LARGE)
    assert raised.value.status_code == status
    wire.check_refusal(raised.value.body, code)
    assert len(watched.sent_at_s) == 1


@pytest.mark.parametrize("route", ROUTES)
def test_overload_is_told(address: str, engine: FakeEngineClient, route: str) -> None:
    """Without retries a 503 raises the SDK's error at once, with the time to wait."""
    engine.refusals.append(QueueFull("too many wait", retry_after_s=7))
    with pytest.raises(errors.SDKError, match="too many wait") as raised:
        call(address, route, LEAST)
    assert raised.value.status_code == 503
    assert raised.value.headers["retry-after"] == "7"
    wire.check_refusal(raised.value.body, "overloaded")
    assert len(engine.asked) == 1


@pytest.mark.parametrize("route", ROUTES)
def test_retry_after_is_honoured(address: str, engine: FakeEngineClient, route: str) -> None:
    """After a 503 the SDK waits as long as it is told, sends once more, and has its picture."""
    engine.refusals.append(QueueFull("too many wait", retry_after_s=RETRY_AFTER_S))
    watched = Watched(address)
    response = watched.call(route, ALL)
    assert response.status_code == 200
    first, second = watched.sent_at_s
    assert second - first >= RETRY_AFTER_S
    assert len(engine.asked) == 2
    assert engine.asked[0][0] == engine.asked[1][0]
    job = response.object.lcm_generation_job
    assert job.request_timestamp == ALL["requestTimestamp"]
    assert wire.cut(job.model_dump(by_alias=True))


@pytest.mark.parametrize("route", ROUTES)
def test_the_server_bounds_the_wait(route: str) -> None:
    """The SDK has no time-out of its own: an engine that hangs ends in a 504, not in silence."""
    engine = FakeEngineClient()
    engine.is_open.clear()
    with running_server(engine, api_keys=KEY, deadline_s=0.2, live_deadline_s=0.2) as address:
        with pytest.raises(errors.SDKError) as raised:
            call(address, route, LEAST)
        assert raised.value.status_code == 504
        wire.check_refusal(raised.value.body, "deadline-exceeded")
    assert engine.num_aborted == 1


def test_the_styles_are_the_sdk_s() -> None:
    """Every style that the SDK knows is served; those of our own are for others to ask for."""
    assert {style.value for style in shared.LcmGenerationStyle} <= set(load_styles())
