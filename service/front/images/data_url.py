"""Data URLs of pictures: text to bytes and back. Knows no codec, and opens no URL and no path."""

from __future__ import annotations

import binascii
import re
from typing import Final

import pybase64

from service.errors import BodyTooLarge, ImageInvalid
from service.front.images.containers import Format, ImageLimits

# "data:", the media type, its parameters and ";base64,": real ones stay under 100 characters.
_MAX_HEADER_CHARS: Final = 512
_IMAGE_TYPE: Final = re.compile(r"image/[a-z0-9.+-]{1,64}")
_MAX_PADDING: Final = 2
_WHITESPACE: Final = " \t\n\r\f\v"
_WHITESPACE_BYTES: Final = _WHITESPACE.encode()
_URLSAFE_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


def decode_data_url(text: str, *, path: str, limits: ImageLimits) -> bytes:
    """The bytes of a base64 data URL, or of bare base64.

    The declared type may be any `image/*`: the bytes decide what the picture is. ASCII whitespace
    anywhere, missing padding and the URL-safe alphabet are put right once; everything else that is
    not plain base64 is refused, as nothing may be dropped in silence.

    `path` names the field in errors, as in "$.imageDataUrl".
    Raises ImageInvalid, and BodyTooLarge before anything over `limits.max_bytes` is decoded.
    """
    field = path.removeprefix("$.")
    try:
        return _decode(_payload(text), limits.max_bytes)
    except OverflowError:
        sentence = f"{field} may hold a file of at most {limits.max_bytes} bytes"
        raise BodyTooLarge(sentence, path=path) from None
    except ValueError:
        sentence = f"{field} must be a data URL such as data:image/jpeg;base64,... or bare base64"
        raise ImageInvalid(sentence, path=path) from None


def to_data_url(data: bytes, format: Format) -> str:  # noqa: A002 - the word of encode_image
    """`data:image/<format>;base64,...`, with the only comma where clients cut."""
    return f"data:image/{format};base64,{pybase64.b64encode_as_string(data)}"


def _payload(text: str) -> str:
    """What follows the header of a data URL; the whole text where there is none."""
    text = text.strip(_WHITESPACE)
    if text[:5].lower() != "data:":
        return text
    comma = text.find(",", 0, _MAX_HEADER_CHARS)
    if comma < 0:
        raise ValueError("no comma ends the header")
    media_type, *parameters = (part.strip() for part in text[5:comma].lower().split(";"))
    if not _IMAGE_TYPE.fullmatch(media_type) or parameters[-1:] != ["base64"]:
        raise ValueError("not a picture in base64")
    return text[comma + 1 :]


def _decode(payload: str, max_bytes: int) -> bytes:
    """Raises ValueError for what is not base64, OverflowError for more than `max_bytes`."""
    if not payload:
        raise ValueError("empty")
    if _decoded_bytes(payload) > max_bytes:
        payload = _normalise(payload)  # whitespace may be all that makes it long
        if _decoded_bytes(payload) > max_bytes:
            raise OverflowError
    try:
        return pybase64.b64decode(payload, validate=True)
    except binascii.Error:
        return pybase64.b64decode(_normalise(payload), validate=True)


def _decoded_bytes(payload: str) -> int:
    return len(payload) * 3 // 4 - payload[-2:].count("=")


def _normalise(payload: str) -> str:
    """Base64 in the standard alphabet, whitespace taken out and padding put in."""
    raw = payload.encode("ascii").translate(None, _WHITESPACE_BYTES)
    body = raw.rstrip(b"=")
    num_missing = -len(body) % 4
    if not body or num_missing > _MAX_PADDING or len(raw) - len(body) not in (0, num_missing):
        raise ValueError("no base64 has this length or padding")
    if b"-" in body or b"_" in body:
        if b"+" in body or b"/" in body:
            raise ValueError("two alphabets in one")
        body = body.translate(_URLSAFE_TO_STANDARD)
    return (body + b"=" * num_missing).decode("ascii")
