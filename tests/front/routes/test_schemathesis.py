"""schemathesis over the service's own document, all its checks on, with real pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from benchmarks.soak.golden_files import WHOLE
from models.styles.presets import load_styles
from service.front.app import create_app
from service.front.images.data_url import to_data_url
from service.settings import Settings
from tests.support.fakes import FakeEngineClient
from tests.support.servers import KEY, running_server

PICTURES = st.sampled_from([to_data_url(data, "png") for data in WHOLE.values()])
schemathesis.openapi.format("picture-data-url", PICTURES)
schemathesis.openapi.format("style-name", st.sampled_from(list(load_styles())))
schemathesis.openapi.format("model-id", st.just("pocket"))
schema = schemathesis.openapi.from_dict(
    create_app(Settings(api_keys=KEY), FakeEngineClient()).openapi()
)


@schema.auth()
class Bearer:
    """Sends the key, but where a check is about its absence."""

    def get(self, case: Any, context: Any) -> str:  # noqa: ARG002 - schemathesis' own signature
        return KEY

    def set(self, case: Any, data: str, context: Any) -> None:  # noqa: ARG002
        case.headers["Authorization"] = f"Bearer {data}"


@schema.hook
def map_body(context: Any, body: Any) -> Any:  # noqa: ARG001 - schemathesis' own signature
    """Write 4.0 as 4: JSON Schema takes both for an integer, and this API the latter alone."""
    if not isinstance(body, dict):
        return body
    whole = {"steps", "seed", "width", "height", "numImages", "outputQuality"}
    return {
        name: int(value) if name in whole and isinstance(value, float) and value % 1 == 0 else value
        for name, value in body.items()
    }


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    # It sends more wrong keys than anybody.
    with running_server(api_keys=KEY, failed_auth_per_minute=100_000) as url:
        yield url


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_service_is_as_its_document_says(case: Any, url: str) -> None:
    """Valid requests are taken, invalid ones refused, and every answer is a documented one."""
    case.call_and_validate(base_url=url)
