"""Bodies are refused before they are made into objects."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from service.errors import BadRequest
from service.front.schemas.parsing import parse_body
from service.front.schemas.requests import RefineRequest


def test_many_keys_are_refused_before_they_are_read() -> None:
    """50,000 keys take no more memory than their text."""
    body = json.dumps({f"k{number}": number for number in range(50_000)}).encode()
    tracemalloc.start()
    with pytest.raises(BadRequest, match="too many values"):
        parse_body(body, RefineRequest)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2 * len(body)


def test_a_prompt_of_marks_alone_is_a_prompt() -> None:
    """1,500 commas, twice, are no structure."""
    marks = 1500 * ","
    fields = {"imageDataUrl": "", "prompt": marks, "negativePrompt": marks}
    assert parse_body(json.dumps(fields).encode(), RefineRequest).prompt == marks
