"""Pictures in and out: a data URL to uint8 pixels [H, W, 3], and pixels to a file.

Whatever a caller sends ends here as plain upright sRGB pixels or as one of three errors. The
functions block for a millisecond to half a second: call them in a thread, not on an event loop.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

import numpy as np
import PIL.WebPImagePlugin  # noqa: F401 - registers it; else the first WebP loads 40 openers
from PIL import Image

from service.errors import BodyTooLarge, ImageInvalid, ImageTooLarge, RefineError
from service.front.images.color_modes import Backdrop, flattened, to_eight_bits
from service.front.images.containers import (
    Container,
    Format,
    ImageLimits,
    MalformedError,
    measure,
    sniff,
    strip,
)
from service.front.images.data_url import decode_data_url, to_data_url
from service.front.images.exif import Metadata, build_exif, parse_metadata, read_orientation
from service.front.images.icc import to_srgb
from service.protocol.jobs import Pixels

__all__ = [
    "Format",
    "ImageLimits",
    "LargePicture",
    "Metadata",
    "Pixels",
    "decode_data_url",
    "decode_image",
    "encode_image",
    "fit_cover",
    "only_small",
    "read_metadata",
    "read_picture",
    "shown_size",
    "to_data_url",
]


DEFAULT_LIMITS: Final = ImageLimits()

_TRANSPOSES: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})

# A box filter down to twice the wanted size, then Lanczos: 54 dB from Lanczos all the way.
_REDUCING_GAP: Final = 2

# Memory is bounded by number as well as by size: a WebP at the pixel cap takes 260 MB to decode, so
# those that need more than this wait for a turn at which no other such is decoded.
_LARGE_BYTES: Final = 64 * 2**20
_takes_large: Final = ContextVar("takes_large", default=True)


class LargePicture(Exception):
    """A picture that takes much memory, met within `only_small`; nothing of it was decoded."""


@contextmanager
def only_small() -> Iterator[None]:
    """Raise LargePicture within, rather than decode a picture that takes over 64 MB."""
    before = _takes_large.set(False)
    try:
        yield
    finally:
        _takes_large.reset(before)


def read_picture(
    source: str | bytes,
    *,
    height: int,
    width: int,
    path: str,
    backdrop: Backdrop = "white",
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Pixels:
    """A data URL or a file to [height, width, 3]: decoded, cropped to cover, turned into sRGB.

    A picture already of that size keeps its pixels. What is transparent shows `backdrop`. `path`
    names the field in errors.
    Raises ImageInvalid, ImageTooLarge, BodyTooLarge.
    """
    data = _file_of(source, path, limits)
    stored = _load(data, path=path, limits=limits, at_least=(height, width), backdrop=backdrop)
    height, width = _turned(stored.orientation, (height, width))
    covering = _cover(stored.image, height, width, stored.extent)
    return _upright(to_srgb(covering, stored.icc), stored.orientation)


def decode_image(
    data: bytes,
    *,
    path: str,
    limits: ImageLimits = DEFAULT_LIMITS,
    at_least: tuple[int, int] | None = None,
) -> Pixels:
    """A JPEG, PNG or WebP file to pixels [H, W, 3]; the first frame of an animation.

    Upright by its EXIF, on white where it is transparent, in sRGB. With `at_least` (height, width)
    a larger picture may come back reduced, with both sides still as long as that or longer.

    Raises ImageInvalid, ImageTooLarge (before anything is allocated), BodyTooLarge.
    """
    stored = _load(data, path=path, limits=limits, at_least=at_least)
    return _upright(to_srgb(stored.image, stored.icc), stored.orientation)


def shown_size(
    source: str | bytes, *, path: str, limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[int, int]:
    """The (height, width) at which a data URL's or file's picture is shown, by its header and EXIF.

    Raises ImageInvalid, BodyTooLarge.
    """
    data = _file_of(source, path, limits)
    try:
        orientation = read_orientation(strip(data, limits).exif)
        return _turned(orientation, measure(data, limits))
    except MalformedError as malformed:
        raise ImageInvalid(f"{path.removeprefix('$.')} {malformed}", path=path) from None


def fit_cover(pixels: Pixels, height: int, width: int) -> Pixels:
    """Pixels scaled to cover [height, width, 3], what overhangs cut off evenly.

    Pixels already of that size come back as they are, the same object.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels)
    return np.array(_cover(image, height, width, image.size))


def encode_image(
    pixels: Pixels,
    *,
    format: Format = "jpeg",  # noqa: A002 - the field's word
    quality: int = 90,
    metadata: Metadata | None = None,
) -> bytes:
    """A file of pixels [H, W, 3], with `metadata` in its EXIF and nothing else about its making.

    JPEG at 4:2:0, which is what viewers expect, 40 % faster than 4:4:4 and a third smaller; PNG at
    level 1 and WebP at method 0, each several times faster than its default. PNG has no quality.
    """
    options: dict[Format, dict[str, int | str]] = {
        "jpeg": {"quality": quality, "subsampling": "4:2:0"},
        "png": {"compress_level": 1},
        "webp": {"quality": quality, "method": 0},
    }
    exif = b"" if metadata is None else build_exif(metadata)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format.upper(), exif=exif, **options[format])
    return file.getvalue()


def read_metadata(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> dict[str, object] | None:
    """The `metadata` that `encode_image` put into a file, or None for any other file."""
    try:
        return parse_metadata(strip(data, limits).exif)
    except MalformedError:
        return None


def _file_of(source: str | bytes, path: str, limits: ImageLimits) -> bytes:
    """The bytes of a data URL or of bare base64; a file as it is."""
    if isinstance(source, bytes):
        return source
    return decode_data_url(source, path=path, limits=limits)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A picture as its file has it: L, RGB or CMYK without transparency, yet to be turned upright.

    `extent` (width, height) is what the picture fills of `image`: reduced to a whole number of
    pixels, it may end within the last column and row.
    """

    image: Image.Image
    extent: tuple[float, float]
    orientation: int
    icc: bytes | None


def _load(
    data: bytes,
    *,
    path: str,
    limits: ImageLimits,
    at_least: tuple[int, int] | None,
    backdrop: Backdrop = "white",
) -> _Stored:
    field = path.removeprefix("$.")
    if len(data) > limits.max_bytes:
        sentence = f"{field} may hold a file of at most {limits.max_bytes} bytes"
        raise BodyTooLarge(sentence, path=path)
    try:
        height, width = measure(data, limits)
        _check_size(height, width, path, limits)
        container = strip(data, limits)
        if not _takes_large.get() and _is_large(sniff(data), height * width, container):
            raise LargePicture
        return _decode(container, (height, width), at_least, backdrop)
    except (RefineError, LargePicture):
        raise
    except MalformedError as malformed:
        raise ImageInvalid(f"{field} {malformed}", path=path) from None
    except Exception:  # noqa: BLE001 - codecs raise anything, and their texts show our memory
        sentence = f"{field} is broken: it does not decode as the picture it begins as"
        raise ImageInvalid(sentence, path=path) from None


def _check_size(height: int, width: int, path: str, limits: ImageLimits) -> None:
    field = path.removeprefix("$.")
    if height == 0 or width == 0:
        raise ImageInvalid(f"{field} has no pixels", path=path)
    if max(height, width) > limits.max_side or height * width > limits.max_pixels:
        bounds = f"{limits.max_side} pixels on a side and {limits.max_pixels} in all"
        raise ImageTooLarge(f"{field} may have at most {bounds}", path=path)


def _is_large(file_format: Format, num_pixels: int, container: Container) -> bool:
    """Return whether decoding takes so much memory that it must not happen twice at once."""
    # Measured at 4096 x 4096, per pixel: the picture itself takes 4, coefficients 6, a WebP's
    # canvases 12, and the copy that weighs colour by transparency in a PNG 4.
    jpeg_bytes = 10 if container.is_progressive else 4
    pixel_bytes = {"jpeg": jpeg_bytes, "png": 8, "webp": 16}[file_format]
    return num_pixels * pixel_bytes > _LARGE_BYTES


def _decode(
    container: Container,
    size: tuple[int, int],
    at_least: tuple[int, int] | None,
    backdrop: Backdrop,
) -> _Stored:
    """Raises whatever a codec does."""
    orientation = read_orientation(container.exif)
    height, width = size if at_least is None else _turned(orientation, at_least)
    file = io.BytesIO(container.coded)
    with Image.open(file, formats=("JPEG", "PNG", "WEBP")) as image:
        if image.size != size[::-1]:
            raise MalformedError("has two sizes")
        # A JPEG at 1/2, 1/4 or 1/8: at 12 megapixels half the time and a sixteenth of the memory.
        drafted = image.draft(None, (width, height))
        extent = drafted[1][2:] if drafted else image.size
        image.load()
        plain = to_eight_bits(image)
    factor = max(1, min(plain.height // height, plain.width // width) // _REDUCING_GAP)
    if factor > 1:  # averaged over squares, so that whatever follows costs less
        plain = plain.reduce(factor)
    extent = (extent[0] / factor, extent[1] / factor)
    return _Stored(flattened(plain, backdrop), extent, orientation, container.icc)


def _cover(image: Image.Image, height: int, width: int, extent: tuple[float, float]) -> Image.Image:
    """The middle of the picture, which fills `extent` (width, height) of `image`, at that size."""
    if image.size == (width, height) == extent:
        return image
    scale = max(width / extent[0], height / extent[1])
    cut_x = max(0.0, extent[0] - width / scale) / 2
    cut_y = max(0.0, extent[1] - height / scale) / 2
    # Cropped while it is read: a strip of 1 x 8192 is never scaled to 512 x 4194304.
    box = (cut_x, cut_y, extent[0] - cut_x, extent[1] - cut_y)
    return image.resize((width, height), Image.Resampling.LANCZOS, box, _REDUCING_GAP)


def _turned(orientation: int, size: tuple[int, int]) -> tuple[int, int]:
    """A size as stored for one as shown, or the other way round."""
    return size[::-1] if orientation in _SIDEWAYS else size


def _upright(image: Image.Image, orientation: int) -> Pixels:
    transpose = _TRANSPOSES.get(orientation)
    upright = image if transpose is None else image.transpose(transpose)
    return np.array(upright)  # [H, W, 3], a copy that may be written to
