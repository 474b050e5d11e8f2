"""The file of keys: lines of `id:sha256[:limits]`. It holds digests, and never a key.

The command line writes it and the front reads it; neither keeps a key that it has seen.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_COUNT: Final = re.compile(r"[0-9]{1,6}")
_RATE: Final = re.compile(r"([1-9][0-9]{0,5})/(s|min|h)")
_SECONDS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0}
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES: Final = 1 << 20
_KEY_BYTES: Final = 32


class KeyFileError(Exception):
    """A file of keys that is not to be used; the sentence says why, and how to mend it."""


@dataclass(frozen=True)
class Rate:
    """`count` requests in each `period_s`, all of which may come at once."""

    count: int
    period_s: float


@dataclass(frozen=True)
class Limits:
    """What one caller may have at a time: requests, their rate, WebSockets. None: no limit."""

    concurrent: int | None = None
    rate: Rate | None = None
    sockets: int | None = None


@dataclass(frozen=True)
class KeyRecord:
    """A line of the file. `limits` are as written, to be laid over the service's own."""

    id: str
    digest: bytes
    limits: str = ""

    def __str__(self) -> str:
        return ":".join([self.id, self.digest.hex(), *([self.limits] if self.limits else [])])


def digest_of(key: str) -> bytes:
    """SHA-256. Keys are 32 random bytes, so that nothing slower would make them safer."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def parse_limits(text: str, base: Limits | None = None) -> Limits:
    """Read `concurrent=16,rate=10/s,sockets=4`; what is not named stays as in `base`.

    Rates are per s, min or h. Raises ValueError with a sentence.
    """
    limits = base or Limits()
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = item.partition("=")
        limits = _with_limit(limits, name.strip(), value.strip())
    return limits


def _with_limit(limits: Limits, name: str, value: str) -> Limits:
    if name == "rate" and (rate := _RATE.fullmatch(value)):
        return replace(limits, rate=Rate(int(rate[1]), _SECONDS[rate[2]]))
    if name == "concurrent" and _COUNT.fullmatch(value):
        return replace(limits, concurrent=int(value))
    if name == "sockets" and _COUNT.fullmatch(value):
        return replace(limits, sockets=int(value))
    raise ValueError("limits must be like concurrent=16,rate=10/s,sockets=4")


def new_record(key_id: str, limits: str = "") -> tuple[str, KeyRecord]:
    """Draw a key; return it, which is the only time that it is seen, and its record.

    Raises KeyFileError for an id or limits that a file cannot hold.
    """
    if not _ID.fullmatch(key_id):
        raise KeyFileError("an id has 1 to 64 letters, digits, dots, dashes and underscores")
    try:
        parse_limits(limits)
    except ValueError as error:
        raise KeyFileError(str(error)) from None
    key = secrets.token_urlsafe(_KEY_BYTES)
    return key, KeyRecord(key_id, digest_of(key), limits)


def read_keys(path: Path) -> list[KeyRecord]:
    """Read a file of keys. Blank lines and those that begin with # are comments.

    An id may stand in several lines, so that a key can be replaced while the old one still holds.
    Raises KeyFileError, also for a file that others than its owner may read.
    """
    try:
        with path.open("rb") as file:
            _check_mode(path, os.fstat(file.fileno()).st_mode)
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        cure = f"make one with: instant-refine keys new ID --file {path}"
        raise KeyFileError(f"there is no file of keys at {path}; {cure}") from None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise KeyFileError(f"{path} is longer than {_MAX_BYTES} bytes")
    lines = content.decode("utf-8", "replace").splitlines()
    numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    return [_parse(path, number, line) for number, line in numbered if line and line[0] != "#"]


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise KeyFileError(f"{path} is not a file")
    if mode & _OTHERS:
        raise KeyFileError(f"{path} is open to others than its owner; run: chmod 600 {path}")


def _parse(path: Path, number: int, line: str) -> KeyRecord:
    """Never repeats the line, which may hold a key by mistake."""
    key_id, _, rest = line.partition(":")
    digest, _, limits = rest.partition(":")
    if not _ID.fullmatch(key_id) or not _DIGEST.fullmatch(digest.lower()):
        raise KeyFileError(f"{path}, line {number}: a line must be id:sha256[:limits]")
    try:
        parse_limits(limits)
    except ValueError as error:
        raise KeyFileError(f"{path}, line {number}: {error}") from None
    return KeyRecord(key_id, bytes.fromhex(digest), limits)


def write_keys(path: Path, records: Iterable[KeyRecord]) -> None:
    """Replace a file of keys in one move; only its owner may read it.

    Comments of the former file are not kept. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.writelines(f"{record}\n" for record in records)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
