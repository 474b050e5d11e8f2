"""Hostile requests: files that are no pictures or far too large, and broken bodies."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.soak import picture_files as pictures
from benchmarks.soak.golden_files import GOLDEN, OTHERS, WHOLE
from benchmarks.soak.picture_files import encoded, png, scene
from service.front.images.data_url import to_data_url

GOOD = to_data_url(WHOLE["jpeg"], "jpeg")


def files() -> dict[str, bytes]:
    """Return files by name. Some are rare but valid pictures."""
    cut = {
        f"{name}-{share}%": data[: len(data) * share // 100]
        for name, data in WHOLE.items()
        for share in (1, 5, 50, 99)
    }
    return {
        **pictures.bombs(),
        **OTHERS,
        **cut,
        **{name: data for name, (data, _) in GOLDEN.items()},
        "scans-20000": pictures.many_scans(20_000),
        "scans-12": pictures.many_scans(12),
        "no-pixels": png(0, 0, 8, 2, b""),
        "one-pixel": encoded(scene(1, 1), "PNG"),
        "a-line": encoded(scene(1, 8192), "PNG"),
        "a-column": encoded(scene(8192, 1), "PNG"),
        "at-the-cap": encoded(scene(8, 8).resize((4096, 4096)), "PNG"),
        "polyglot": WHOLE["jpeg"] + OTHERS["zip"],
        "exif-of-60-kb": encoded(scene(8, 8), "JPEG", exif=pictures.exif(padding=60_000)),
        "exif-in-circles": encoded(scene(8, 8), "JPEG", exif=pictures.exif(next_directory=8)),
        **{
            f"orientation-{turn}": pictures.with_orientation(scene(9, 5), "JPEG", turn)
            for turn in (0, 3, 6, 8, 9, 65535)
        },
    }


def texts() -> dict[str, str]:
    """Return values of `imageDataUrl` that are no files."""
    payload = GOOD.partition(",")[2]
    return {
        "an address": "http://127.0.0.1:1/a.png", "metadata": "https://169.254.169.254/latest",
        "a file": "file:///etc/passwd", "a path": "/etc/passwd", "ftp": "ftp://a/b",
        "no scheme": "//host/a.png", "html": "data:text/html;base64," + payload,
        "no base64": "data:image/png,abc", "no comma": "data:image/png;base64" + payload,
        "two commas": "data:image/png;base64,," + payload, "equals": "====",
        "junk": "data:image/png;base64," + payload + "!!", "percent": payload.replace("/", "%2F"),
        "long type": "data:image/" + "x" * 10_000 + ";base64," + payload,
        "one character": "A", "spaces": " " * 10_000, "two alphabets": "-+" + payload,
    }  # fmt: skip


def bodies() -> dict[str, bytes]:
    """Return bodies that are no request."""
    good: dict[str, Any] = {"imageDataUrl": GOOD, "prompt": "a boat"}

    def with_field(name: str, raw: str) -> bytes:
        text = json.dumps({**good, name: "@"}) if name not in good else json.dumps(good)
        return text.replace('"@"' if name not in good else json.dumps(good[name]), raw).encode()

    numbers = [
        "NaN",
        "Infinity",
        "1e999",
        "-0.0",
        "9" * 5000,
        str(2**63),
        str(2**65),
        "true",
        '"7"',
    ]
    return {
        "empty": b"", "list": b"[]", "text": b'"x"', "null": b"null", "open": b"{", "tail": b"{} x",
        "bom": b"\xef\xbb\xbf{}", "utf-16": "{}".encode("utf-16"), "bad utf-8": b'{"a":"\xff"}',
        "deep": b"[" * 100_000, "deep objects": b'{"a":' * 100_000, "zeros": bytes(100_000),
        "twice": b'{"prompt":"a","prompt":"b"}', "many keys": json.dumps(
            {f"k{number}": number for number in range(50_000)}).encode(),
        **{f"steps {raw[:9]}": with_field("steps", raw) for raw in [*numbers, "1.5", "[4]"]},
        **{f"seed {raw[:9]}": with_field("seed", raw) for raw in numbers},
        **{f"guidance {raw[:9]}": with_field("guidance", raw) for raw in numbers},
        "surrogate": with_field("prompt", '"\\ud800"'), "nul": with_field("prompt", '"\\u0000"'),
        "long prompt": with_field("prompt", '"' + "x" * 1_000_000 + '"'),
        "zalgo": with_field("prompt", '"' + "Z\\u0351\\u036b" * 400 + '"'),
        "style": with_field("style", '"../../etc/passwd"'),
        "model": with_field("modelId", '"..\\\\..\\\\x"'),
        "unknown": with_field("__proto__", "{}"),
    }  # fmt: skip
