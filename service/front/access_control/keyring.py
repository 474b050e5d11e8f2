"""Who asks: bearer keys to callers. Digests are compared, all of them, in constant time."""

from __future__ import annotations

import hmac
import ipaddress
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from starlette.datastructures import Headers

from service.api_keys import (
    KeyFileError,
    KeyRecord,
    Limits,
    Rate,
    digest_of,
    parse_limits,
    read_keys,
)
from service.errors import AccessDenied
from service.front.access_control.token_bucket import WRONG_KEYS, FailedAuthLimiter

_LOOK_EVERY_S: Final = 1.0
_DENIED: Final = "a valid key is required: send Authorization: Bearer KEY"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Caller:
    """Whom a key belongs to, by the id that logs and limits know, and what it may have."""

    id: str
    limits: Limits = field(default_factory=Limits)
    digest: bytes = field(default=b"", repr=False)


ANYBODY: Final = Caller("anybody")
"""The caller of a service without keys. It has no limits."""


class KeyRing:
    """The keys that are accepted: a fixed list and those of a file, which may change.

    Without either the service is open. The file is looked at again when a second has passed, so
    that a key holds or ends as soon as its line stands or is gone. A file that is broken later on
    leaves the keys as they were, and is logged. Used from the event loop alone.
    """

    def __init__(
        self,
        keys: Iterable[str] = (),
        file: Path | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        wrong_keys: Rate = WRONG_KEYS,
    ) -> None:
        """`wrong_keys` is how many an address may show.

        Raises KeyFileError when there is a file and it cannot be used.
        """
        self._fixed = [
            KeyRecord(f"key-{number}", digest_of(key)) for number, key in enumerate(keys, start=1)
        ]
        self._file = file
        self._limits = limits or Limits()
        self._clock = clock
        self._gate = FailedAuthLimiter(clock, wrong_keys)
        self._stamp = None if file is None else _stamp(file)
        self._callers = self._read()
        self._looked_at = clock()

    @property
    def is_open(self) -> bool:
        return not self._fixed and self._file is None

    def __len__(self) -> int:
        return len(self._callers)

    def identify(self, presented: str, *, peer: str = "") -> Caller:
        """Return whom a key belongs to; ANYBODY for a service without keys.

        Raises AccessDenied for a key that is unknown, and RateLimited instead when too many such
        came from `peer`, an address. A known key is taken whatever came before it.
        """
        if self.is_open:
            return ANYBODY
        self._look()
        digest = digest_of(presented)
        found = [caller for caller in self._callers if hmac.compare_digest(digest, caller.digest)]
        if found:
            return found[0]
        if presented:
            self._gate.count(peer)
        raise AccessDenied(_DENIED)

    def authenticate(self, headers: Headers, *, peer: str = "") -> Caller:
        """Identify by `Authorization: Bearer KEY`, given once. Reads the headers alone.

        Raises what `identify` does.
        """
        if self.is_open:
            return ANYBODY
        given = headers.getlist("authorization")
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        return self.identify(key.strip() if scheme.lower() == "bearer" else "", peer=peer)

    def still_holds(self, caller: Caller) -> bool:
        """Return whether the key that a caller came with is still one: for what stays connected."""
        self._look()
        return caller is ANYBODY or any(caller.digest == known.digest for known in self._callers)

    def reload(self) -> None:
        """Read the file now, whether or not it changed."""
        if self._file is None:
            return
        self._stamp = _stamp(self._file)
        self._looked_at = self._clock()
        try:
            self._callers = self._read()
            _log.info("keys read", count=len(self._callers))
        except KeyFileError as error:
            _log.error("keys not read, those of before hold", reason=str(error))

    def _look(self) -> None:
        now = self._clock()
        if self._file is None or now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        if _stamp(self._file) != self._stamp:
            self.reload()

    def _read(self) -> list[Caller]:
        records = self._fixed + ([] if self._file is None else read_keys(self._file))
        return [
            Caller(record.id, parse_limits(record.limits, self._limits), record.digest)
            for record in records
        ]


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - the tuple is read as it stands
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address to listen on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
