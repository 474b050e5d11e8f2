"""What a painter's messages say: a greeting, then frames with the fields of one of the routes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from service.errors import BadRequest, RefineError, ValidationFailed
from service.front.generation import ROUTES
from service.front.schemas.parsing import parse_json, validate
from service.front.schemas.requests import RefineRequest

LIVE_ROUTE: Final = "generations-lcm"
MAX_ID: Final = 2**53 - 1
"""The largest integer up to which JavaScript has every one."""


MAX_HELLO_CHARACTERS: Final = 4096


class Hello(BaseModel):
    """The first message. Neither a key nor a ticket is needed where the service has no keys."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    key: str | None = Field(None, description="a key")
    ticket: str | None = Field(None, description="a ticket of POST /v1/tickets")


@dataclass(frozen=True)
class Frame:
    """One picture that is asked for; `file` is the binary message that came with it, if one did."""

    id: int
    route: str
    request: RefineRequest
    file: bytes | None = None

    @property
    def num_bytes(self) -> int:
        """What its pictures take, as they came."""
        request = self.request
        texts = (request.image_data_url, getattr(request, "mask_data_url", None) or "")
        return len(self.file or b"") + sum(map(len, texts))

    @cached_property
    def question(self) -> bytes:
        """A digest of what is asked; none where the answer differs each time, without a seed."""
        if self.request.seed is None:
            return b""
        file = self.file or b""
        # json's own, which takes what is no Unicode: a decoder has yet to refuse it.
        asked = json.dumps(self.request.model_dump(exclude={"request_timestamp"}))
        digest = hashlib.blake2b(f"{self.route} {len(file)} {asked}".encode())
        digest.update(file)
        return digest.digest()


@dataclass(frozen=True)
class Refusal:
    """What is not taken, and why; without an id it is no frame's answer.

    A strike is what no sound client sends.
    """

    error: RefineError
    frame_id: int | None = None
    is_strike: bool = False


class FrameParser:
    """Makes frames of messages: one message each, or a frame's fields and then its picture.

    `open_id` takes note of the id of each frame that begins, and raises ValidationFailed.
    """

    def __init__(self, open_id: Callable[[int], None]) -> None:
        self._open_id = open_id
        self._unfinished: Frame | None = None
        self._skips_file = False  # that of a frame which was refused

    def take_text(self, text: str) -> Iterator[Frame | Refusal]:
        """Read a text message."""
        yield from self._give_up_unfinished()
        try:
            content = _read_message(text, expected="frame")
            frame_id, is_followed = _pop_id(content), _pop_is_followed(content)
        except RefineError as error:
            yield Refusal(error, is_strike=True)
            return
        yield from self._begin(frame_id, content, is_followed=is_followed)

    def take_file(self, file: bytes) -> Iterator[Frame | Refusal]:
        """Read a binary message: the picture of the frame before it."""
        frame, self._unfinished = self._unfinished, None
        skips_file, self._skips_file = self._skips_file, False
        if frame is not None:
            yield replace(frame, file=file)
        elif not skips_file:
            error = BadRequest("a binary message must follow a frame without imageDataUrl")
            yield Refusal(error, is_strike=True)

    def _begin(
        self, frame_id: int, content: dict[str, Any], *, is_followed: bool
    ) -> Iterator[Frame | Refusal]:
        self._skips_file = is_followed
        try:
            self._open_id(frame_id)
        except ValidationFailed as error:
            yield Refusal(error)  # the id has its answer already, or will have
            return
        try:
            frame = _to_frame(frame_id, content, is_followed=is_followed)
        except RefineError as error:
            yield Refusal(error, frame_id)
            return
        if is_followed:
            self._unfinished = frame
        else:
            yield frame

    def _give_up_unfinished(self) -> Iterator[Refusal]:
        frame, self._unfinished, self._skips_file = self._unfinished, None, False
        if frame is not None:
            sentence = "imageDataUrl is required, or the picture as the next, binary message"
            yield Refusal(ValidationFailed(sentence, path="$.imageDataUrl"), frame.id)


def read_hello(text: str) -> Hello:
    """Read the first message. Raises BadRequest or ValidationFailed."""
    if len(text) > MAX_HELLO_CHARACTERS:  # of a stranger: not even read
        raise BadRequest(f"the first message may have {MAX_HELLO_CHARACTERS} characters")
    return validate(_read_message(text, expected="hello"), Hello)


def _read_message(text: str, *, expected: str) -> dict[str, Any]:
    """Return the fields of a message besides its type."""
    content = parse_json(text, what="message")
    if content.pop("type", None) != expected:
        raise BadRequest(f"type must be {expected} here", path="$.type")
    return content


def _pop_id(content: dict[str, Any]) -> int:
    frame_id = content.pop("id", None)
    if type(frame_id) is int and 0 <= frame_id <= MAX_ID:
        return frame_id
    raise ValidationFailed(f"id must be an integer from 0 to {MAX_ID}", path="$.id")


def _pop_is_followed(content: dict[str, Any]) -> bool:
    is_followed = content.pop("binary", None)
    if is_followed is None:
        return "imageDataUrl" not in content
    if isinstance(is_followed, bool):
        return is_followed
    raise ValidationFailed("binary must be true or false", path="$.binary")


def _to_frame(frame_id: int, content: dict[str, Any], *, is_followed: bool) -> Frame:
    """Raise what the route would raise over HTTP."""
    route = content.pop("route", LIVE_ROUTE)
    if not isinstance(route, str) or route not in ROUTES:
        raise ValidationFailed(f"route must be one of {', '.join(ROUTES)}", path="$.route")
    if is_followed:
        if "imageDataUrl" in content:
            raise BadRequest("the picture must come once", path="$.imageDataUrl")
        content = {**content, "imageDataUrl": ""}  # which the file stands in for
    return Frame(frame_id, route, validate(content, ROUTES[route].request))
