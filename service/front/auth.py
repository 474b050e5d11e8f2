"""Bearer keys: who may ask. Digests are compared, all of them, in constant time."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable

from starlette.requests import Request

from service.errors import AccessDenied


class KeyRing:
    """The keys that are accepted; without any, everybody is."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    @property
    def is_open(self) -> bool:
        return not self._digests

    def check(self, request: Request) -> bytes | None:
        """Return the holder of the key that a request carries as `Authorization: Bearer KEY`.

        None where no key is needed. Raises AccessDenied for another key or none. Reads the
        headers alone.
        """
        if self.is_open:
            return None
        headers = request.headers.getlist("authorization")
        scheme, _, key = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
        holder = self.holder_of(key.strip().encode("latin-1", "replace"))
        if scheme.lower() != "bearer" or holder is None:
            raise AccessDenied("a valid key is required: send Authorization: Bearer KEY")
        return holder

    def holder_of(self, key: bytes) -> bytes | None:
        """Return what a known key's holder is told from others by; None for an unknown key."""
        presented = _digest(key)
        matches = [hmac.compare_digest(presented, digest) for digest in self._digests]
        return presented if any(matches) else None

    def knows(self, holder: bytes) -> bool:
        """Tell whether a holder's key is still accepted."""
        return holder in self._digests


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address to listen on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
