"""Request bodies: strict JSON to a request model, or an error that names the field."""

from __future__ import annotations

import json
import math
import re
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from service.errors import BadRequest, ValidationFailed

_MAX_DIGITS = 20
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


Request = TypeVar("Request", bound=BaseModel)


def parse_body(body: bytes, model: type[Request]) -> Request:
    """Read a request body strictly.

    Raises BadRequest for what is not one JSON object with each known key once, ValidationFailed
    for a value of the wrong type or out of its bounds.
    """
    try:
        content = parse_json(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadRequest("the body must be one JSON object in UTF-8") from None
    return validate(content, model)


def validate(content: dict[str, Any], model: type[Request]) -> Request:
    """Hold JSON against its model. Raises BadRequest, ValidationFailed."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise _to_refusal(model, first["type"], first["loc"]) from None


_MAX_MARKS = 10_000
"""Commas, colons and brackets of a body, which a long prompt may hold, too.

Without a bound 50,000 keys were 100,000 objects before the first of them was refused.
"""


class _DuplicateKeyError(ValueError):
    pass


def parse_json(text: str, *, what: str = "body") -> dict[str, Any]:
    """Read one JSON object, each key once. `what` it is stands in errors. Raises BadRequest."""
    if sum(text.count(mark) for mark in ",:[{") > _MAX_MARKS:
        raise BadRequest(f"the {what} has too many values")
    try:
        content = json.loads(text, object_pairs_hook=_unique_keys, parse_int=_bounded_int)
    except _DuplicateKeyError:
        raise BadRequest(f"the {what} names a field twice") from None
    except (ValueError, RecursionError):
        raise BadRequest(f"the {what} must be one JSON object in UTF-8") from None
    if not isinstance(content, dict):
        raise BadRequest(f"the {what} must be one JSON object in UTF-8")
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise _DuplicateKeyError
    return content


def _bounded_int(digits: str) -> int | float:
    # Python refuses to convert thousands of digits; infinity is out of every bound as well.
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def _to_refusal(
    model: type[BaseModel], kind: str, location: tuple[int | str, ...]
) -> BadRequest | ValidationFailed:
    if not location:  # a key that is no text: half of a surrogate pair
        return BadRequest("the body holds a field that is unknown here")
    name = str(location[0])
    known = {to_camel(field): info for field, info in model.model_fields.items()}
    if kind == "extra_forbidden":
        return _unknown_field(name, list(known))
    path = f"$.{name}"
    if kind == "missing":
        return ValidationFailed(f"{name} is required", path=path)
    return ValidationFailed(f"{name} must be {known[name].description}", path=path)


def _unknown_field(name: str, known: list[str]) -> BadRequest:
    if not _FIELD_NAME.fullmatch(name):
        return BadRequest("the body holds a field that is unknown here")
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return BadRequest(f"{name} is not a field of this route{hint}", path=f"$.{name}")
