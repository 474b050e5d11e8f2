"""The official TypeScript client, unmodified, holds the server to its contract."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import QueueFull
from tests.support import sdk_wire as wire
from tests.support.backends import Witness
from tests.support.fakes import FakeEngineClient
from tests.support.sdk_wire import ALL, LEAST, NULLS, PREFIXES, ROUTES
from tests.support.servers import KEY

METHODS = {
    "/lcm-instant-refine": "performInstantRefine",
    "/generations-lcm": "createLCMGeneration",
    "/lcm-inpainting": "performInpaintingLCM",
    "/lcm-upscale": "performAlchemyUpscaleLCM",
}
# Waits less than a second before it sends a second time where the server names no time.
BACKOFF = {"initialInterval": 1, "maxInterval": 5000, "exponent": 1, "maxElapsedTime": 5000}
RETRIES = {"strategy": "backoff", "backoff": BACKOFF}
RETRY_AFTER_S = 2


class Sdk:
    """A process that holds the SDK, as a caller's own server would."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process = process
        self.address = address

    def run(self, scenario: str, **given: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        print(json.dumps({"scenario": scenario, **given}), file=stdin, flush=True)
        answer = stdout.readline()
        assert answer, "the process with the SDK has ended"
        return json.loads(answer)

    def call(self, route: str, fields: dict[str, Any], **options: Any) -> Any:
        """Call a route with an address and a key; return the result, and what crossed the wire.

        An `error` stands in the place of the result where the SDK threw one.
        """
        given = {"serverURL": self.address, "bearerAuth": KEY, "request": fields, **options}
        return self.run(METHODS[route], **given)


@pytest.fixture(scope="module")
def process(modules: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        ["node", "client.mjs"],
        cwd=modules.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def sdk(process: subprocess.Popen[str], address: str) -> Sdk:
    return Sdk(process, address)


def job_of(outcome: Any) -> dict[str, Any]:
    """The job that the SDK returned, as it has typed it."""
    assert "error" not in outcome, outcome["error"]
    assert outcome["statusCode"] == 200
    assert outcome["contentType"] == "application/json"
    job: dict[str, Any] = outcome["object"]["lcmGenerationJob"]
    return job


def the_exchange(outcome: Any) -> Any:
    """What was sent and received, which must have happened once."""
    [exchange] = outcome["exchanges"]
    return exchange


def test_the_referee_is_the_contract_s(modules: Path) -> None:
    """The installed SDK is of the version that the contract names."""
    package = json.loads((modules / "@leonardo-ai/sdk/package.json").read_text())
    assert package["version"] == "4.21.3"


def test_the_lock_names_no_host() -> None:
    """Whichever registry a machine uses serves the locked packages, by their digests."""
    locked = json.loads((Path(__file__).parent / "package-lock.json").read_text())["packages"]
    packages = [package for name, package in locked.items() if name]
    assert packages
    assert all("integrity" in package and "resolved" not in package for package in packages)


@pytest.mark.real_engines
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("route", ROUTES)
def test_a_picture_comes_back(sdk: Sdk, witness: Witness, route: str, prefix: str) -> None:
    """Given every field, exactly 200 comes back with one picture and all that the SDK types."""
    outcome = sdk.call(route, ALL, serverURL=sdk.address + prefix)
    job = job_of(outcome)
    exchange = the_exchange(outcome)
    assert exchange["url"] == sdk.address + prefix.rstrip("/") + route
    assert (exchange["status"], exchange["redirected"]) == (200, False)
    assert job.keys() == wire.TYPED_FIELDS
    assert job["requestTimestamp"] == ALL["requestTimestamp"]
    assert job["cost"] is job["apiCreditCost"] is None
    assert json.loads(exchange["received"])["lcmGenerationJob"]["seed"] == ALL["seed"]
    wire.check_picture(job, witness)
    wire.check_all_reached_the_engine(job, witness)


@pytest.mark.parametrize("route", ROUTES)
def test_the_picture_is_made_of_the_one_that_was_sent(
    sdk: Sdk, engine: FakeEngineClient, route: str
) -> None:
    """The engine gets the caller's picture, and the caller what the engine makes of it."""
    wire.check_the_negative(job_of(sdk.call(route, ALL)), engine)


@pytest.mark.real_engines
def test_inpainting_takes_a_mask(sdk: Sdk, witness: Witness) -> None:
    """With a white mask the whole picture is repainted, and the job is of the usual shape."""
    wire.check_picture(job_of(sdk.call("/lcm-inpainting", wire.INPAINT)), witness)


@pytest.mark.real_engines
def test_an_upscale_comes_back_twice_as_large_with_its_ids(sdk: Sdk, witness: Witness) -> None:
    """1024 x 1024 for 512 x 512, and the ids that the SDK types for this route."""
    job = job_of(sdk.call("/lcm-upscale", wire.UPSCALE))
    assert job.keys() == (wire.TYPED_FIELDS - {"requestTimestamp"}) | wire.UPSCALE_FIELDS
    assert wire.size_of(job) == (1024, 1024)
    assert witness.num_asked == 1


@pytest.mark.parametrize("route", ROUTES)
def test_the_least_request_is_told_its_seed(sdk: Sdk, witness: Witness, route: str) -> None:
    """With picture and prompt alone: the defaults, no timestamp, and the seed that was drawn."""
    outcome = sdk.call(route, LEAST)
    job = job_of(outcome)
    exchange = the_exchange(outcome)
    assert json.loads(exchange["sent"]) == LEAST | {"height": 512, "width": 512}
    assert job.keys() == wire.TYPED_FIELDS - {"requestTimestamp"}
    wire.check_picture(job, witness)
    wire.check_seed_is_told(exchange["received"], witness)


@pytest.mark.parametrize("route", ROUTES)
def test_nulls_are_absent(sdk: Sdk, witness: Witness, route: str) -> None:
    """The nulls that the SDK sends for what is null get a picture of the default size."""
    outcome = sdk.call(route, NULLS)
    assert json.loads(the_exchange(outcome)["sent"]) == NULLS
    job = job_of(outcome)
    wire.check_picture(job, witness)
    params = wire.the_asked(job, witness)
    assert (params.height, params.width) == (512, 512)


def test_a_number_for_a_timestamp_comes_back_as_text(sdk: Sdk) -> None:
    """A numeric timestamp, which other clients send, is echoed as text that the SDK can read."""
    headers = {"Authorization": f"Bearer {KEY}"}
    fields = LEAST | {"requestTimestamp": 1_767_323_045_678}
    responses = [
        httpx.post(sdk.address + route, json=fields, headers=headers, timeout=240)
        for route in ROUTES
    ]
    for parsed in sdk.run("parse", answers=[response.text for response in responses]):
        for result in parsed:  # by the schema of each route
            assert result["ok"]
            job = result["value"]["lcmGenerationJob"]
            assert job["requestTimestamp"] == "1767323045678"
            assert wire.cut(job)


def test_the_sdk_would_refuse_a_broken_job(sdk: Sdk) -> None:
    """One value of the wrong type, or a null timestamp, loses the picture: it would be noticed."""
    parts: list[dict[str, Any]] = [{}, *wire.BROKEN_ANSWERS, {"requestTimestamp": None}]
    sound, *broken = sdk.run("parse", answers=[wire.answer_with(part) for part in parts])
    assert all(result["ok"] for result in sound)
    assert not any(result["ok"] for parsed in broken for result in parsed)


@pytest.mark.real_engines
@pytest.mark.parametrize(("name", "value"), wire.OUT_OF_BOUNDS)
@pytest.mark.parametrize("route", ROUTES)
def test_out_of_bounds_is_final(
    sdk: Sdk, witness: Witness, route: str, name: str, value: float
) -> None:
    """A 400 throws the SDK's error, which names field and bound; it is not sent again."""
    outcome = sdk.call(route, ALL | {name: value}, retryConfig=RETRIES)
    assert outcome["error"]["name"] == "SDKError"
    assert outcome["error"]["statusCode"] == 400
    assert f"{name} must be" in outcome["error"]["message"]
    wire.check_refusal(outcome["error"]["body"], "validation-failed", f"$.{name}")
    assert the_exchange(outcome)["status"] == 400
    assert witness.num_asked == 0


@pytest.mark.real_engines
@pytest.mark.parametrize("route", ROUTES)
def test_a_wrong_key_is_final(sdk: Sdk, witness: Witness, route: str) -> None:
    """A 401 throws the SDK's error; it is not sent again."""
    outcome = sdk.call(route, LEAST, bearerAuth="a-wrong-key", retryConfig=RETRIES)
    assert outcome["error"]["name"] == "SDKError"
    assert outcome["error"]["statusCode"] == 401
    assert outcome["error"]["headers"]["www-authenticate"] == "Bearer"
    wire.check_refusal(outcome["error"]["body"], "access-denied")
    assert the_exchange(outcome)["status"] == 401
    assert witness.num_asked == 0


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [("a-wrong-key", 401, "access-denied"), (KEY, 413, "body-too-large")],
)
def test_a_refusal_before_the_body_is_read_arrives(
    sdk: Sdk, key: str, status: int, code: str
) -> None:
    """A caller who still sends megabytes gets the refusal, not a broken connection."""
    outcome = sdk.call(ROUTES[0], wire.TOO_LARGE, bearerAuth=key, retryConfig=RETRIES)
    assert outcome["error"].get("statusCode") == status, outcome["error"]
    wire.check_refusal(outcome["error"]["body"], code)
    assert the_exchange(outcome)["status"] == status


@pytest.mark.parametrize("route", ROUTES)
def test_overload_is_told(sdk: Sdk, engine: FakeEngineClient, route: str) -> None:
    """Without retries a 503 throws the SDK's error at once, with the time to wait."""
    engine.refusals.append(QueueFull("too many wait", retry_after_s=7))
    outcome = sdk.call(route, LEAST)
    assert outcome["error"]["name"] == "SDKError"
    assert outcome["error"]["statusCode"] == 503
    assert outcome["error"]["headers"]["retry-after"] == "7"
    wire.check_refusal(outcome["error"]["body"], "overloaded")
    assert the_exchange(outcome)["status"] == 503
    assert len(engine.asked) == 1


def test_retry_after_is_honoured(sdk: Sdk, engine: FakeEngineClient) -> None:
    """After a 503 the SDK waits as long as it is told, sends once more, and has its picture."""
    engine.refusals.append(QueueFull("too many wait", retry_after_s=RETRY_AFTER_S))
    outcome = sdk.call(ROUTES[0], ALL, retryConfig=RETRIES)
    job = job_of(outcome)
    assert job["requestTimestamp"] == ALL["requestTimestamp"]
    assert wire.cut(job)
    first, second = outcome["exchanges"]
    assert (first["status"], second["status"]) == (503, 200)
    # A timer of node may ring a millisecond early; without Retry-After the wait is below 1 s.
    assert second["sentAtMs"] - first["sentAtMs"] >= 1000 * RETRY_AFTER_S - 5
    assert engine.asked[0][0] == engine.asked[1][0]
    assert len(engine.asked) == 2
