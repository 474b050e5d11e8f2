"""Data URLs: what is taken, what is put right, what is refused, and that none is ever followed."""

from __future__ import annotations

import base64
import subprocess
import sys
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import BodyTooLarge, ImageInvalid
from service.front.images.codec import ImageLimits, decode_data_url, to_data_url

DATA = bytes(range(256))
BASE64 = base64.b64encode(DATA).decode()
URLSAFE = base64.urlsafe_b64encode(DATA).decode()
LIMITS = ImageLimits()


def decode(text: str, limits: ImageLimits = LIMITS) -> bytes:
    return decode_data_url(text, path="$.imageDataUrl", limits=limits)


@pytest.mark.parametrize(
    "header",
    [
        "data:image/jpeg;base64,",
        "data:image/png;base64,",
        "data:image/svg+xml;base64,",
        "data:image/x-anything;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        "Data:image/png;charset=utf-8;base64,",
        "data:image/png;name=a.png;base64,",
        "data: image/png ; base64 ,",
        "",
    ],
)
def test_header_is_taken(header: str) -> None:
    """D1: any image type, parameters and any case are taken, and so is bare base64."""
    assert decode(header + BASE64) == DATA


@pytest.mark.parametrize(
    "payload",
    [
        "\n".join(BASE64[i : i + 76] for i in range(0, len(BASE64), 76)),
        " \r\n\t" + BASE64 + "\r\n",
        " ".join(BASE64),
        BASE64.rstrip("="),
        URLSAFE,
        URLSAFE.rstrip("="),
        "\n".join(URLSAFE),
    ],
    ids=["lines", "outer", "spaced", "unpadded", "urlsafe", "urlsafe-unpadded", "urlsafe-spaced"],
)
@pytest.mark.parametrize("header", ["data:image/png;base64,", ""], ids=["url", "bare"])
def test_payload_is_put_right(header: str, payload: str) -> None:
    """D2: whitespace, missing padding and the URL-safe alphabet change nothing."""
    assert decode(header + payload) == DATA


@pytest.mark.parametrize(
    "payload",
    [
        "",
        " \n ",
        "=",
        "====",
        "a",
        "aaaaa",
        "aGVsbG8=!!",
        "aGVsbG8=aGVs",
        "aGVsbG8==",
        "aGVs=",
        "aGVs====",
        "=aGV",
        "aG=s",
        "ab+/ab-_",
        "aGVs\0bG8=",
        "aGVs.bG8=",
        "aGVs\u00a0bG8=",
        "aGVsb\u0413g=",
        "aGVs\ud800bG8=",
        BASE64.replace("+", "%2B"),
        BASE64.replace("=", "%3D"),
        BASE64 + "," + BASE64,
        "image/png;base64," + BASE64,
    ],
)
@pytest.mark.parametrize("header", ["data:image/png;base64,", ""], ids=["url", "bare"])
def test_payload_is_refused(header: str, payload: str) -> None:
    """D3, D4: junk, wrong padding, mixed alphabets and percent signs are refused, not dropped."""
    with pytest.raises(ImageInvalid) as refusal:
        decode(header + payload)
    assert refusal.value.path == "$.imageDataUrl"
    assert "imageDataUrl" in refusal.value.message


@pytest.mark.parametrize(
    "text",
    [
        "data:",
        "data:,abc",
        "data:image/png",
        "data:image/png," + BASE64,
        "data:image/png;base64" + BASE64,
        "data:image/png;base64;charset=utf-8," + BASE64,
        "data:;base64," + BASE64,
        "data:text/html;base64," + BASE64,
        "data:text/html,<script>",
        "data:image/;base64," + BASE64,
        "data:image/png\0;base64," + BASE64,
        "data:image/" + "x" * 10_000 + ";base64," + BASE64,
        "data:image/png;" + "a=b;" * 2_500 + "base64," + BASE64,
        "data:data:image/png;base64," + BASE64,
        "\0data:image/png;base64," + BASE64,
    ],
)
def test_header_is_refused(text: str) -> None:
    """D4: no comma, no base64, another type or a header of 10 kB is refused."""
    with pytest.raises(ImageInvalid):
        decode(text)


_FOLLOW = """
import sys
from service.errors import ImageInvalid
from service.front.images.codec import read_picture
def read(text):
    try:
        read_picture(text, height=512, width=512, path="$.imageDataUrl")
    except ImageInvalid:
        return
    raise SystemExit("taken: " + text)
read("data:image/png;base64,AAAA")  # whatever is imported late is imported now
events = []
sys.addaudithook(lambda event, _: events.append(event))
for text in sys.argv[1:]:
    read(text)
touched = [e for e in events if e.split(".")[0] in ("open", "socket", "os", "subprocess", "urllib")]
raise SystemExit(str(touched) if touched else 0)
"""


def test_nothing_is_opened() -> None:
    """D5: addresses and paths are refused without a file or a socket being opened."""
    texts = [
        "http://127.0.0.1/a.png",
        "https://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "ftp://host/a.png",
        "//host/share",
        "/etc/passwd",
        "C:\\\\a.png",
        "data:text/html,<img src=http://127.0.0.1/>",
        "data:image/svg+xml;base64," + base64.b64encode(b'<svg><image href="/"/></svg>').decode(),
    ]
    done = subprocess.run(
        [sys.executable, "-c", _FOLLOW, *texts], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("header", ["data:image/png;base64,", ""], ids=["url", "bare"])
@pytest.mark.parametrize("num_bytes", [3000, 3001, 3002])
def test_size_is_bounded_to_the_byte(header: str, num_bytes: int) -> None:
    """D6: exactly the limit is taken and a byte more is 413, whatever the padding."""
    text = header + base64.b64encode(bytes(num_bytes)).decode()
    assert len(decode(text, ImageLimits(max_bytes=num_bytes))) == num_bytes
    with pytest.raises(BodyTooLarge) as refusal:
        decode(text, ImageLimits(max_bytes=num_bytes - 1))
    assert refusal.value.path == "$.imageDataUrl"
    assert "imageDataUrl" in refusal.value.message


def test_whitespace_is_not_size() -> None:
    """D6: a file just within the limit may come in lines."""
    text = base64.encodebytes(bytes(3000)).decode()
    assert decode(text, ImageLimits(max_bytes=3000)) == bytes(3000)


def test_megabyte_takes_milliseconds() -> None:
    """A megabyte of base64 is decoded in a few milliseconds, in lines too."""
    text = base64.b64encode(bytes(750_000)).decode()
    for variant in (text, text[:500] + "\n" + text[500:]):
        seconds = min(_timed(variant) for _ in range(3))
        assert seconds < 0.02


def _timed(text: str) -> float:
    begin = time.perf_counter()
    decode(text)
    return time.perf_counter() - begin


@given(st.binary(min_size=1), st.sampled_from(["jpeg", "png", "webp"]))
def test_round_trip(data: bytes, file_format: str) -> None:
    """What to_data_url writes, decode_data_url reads, and one comma divides it."""
    text = to_data_url(data, file_format)  # type: ignore[arg-type]
    assert text.startswith(f"data:image/{file_format};base64,")
    assert text.count(",") == 1
    assert decode(text) == data


@given(st.text(alphabet="aB3+/-_= \n.,:;", max_size=24))
@example("a===")
def test_bare_text_is_refused_or_exact(text: str) -> None:
    """Bare text is refused unless, put right, it is what an encoder writes for the same bytes."""
    try:
        data = decode(text)
    except ImageInvalid:
        return
    compact = "".join(text.split()).rstrip("=")
    standard = compact.replace("-", "+").replace("_", "/")
    # The last character may hold bits that no byte takes.
    assert base64.b64encode(data).decode().rstrip("=")[:-1] == standard[:-1]
