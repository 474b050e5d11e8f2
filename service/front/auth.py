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

    def check(self, request: Request) -> None:
        """Let a request pass that carries a known key as `Authorization: Bearer KEY`.

        Raises AccessDenied otherwise. Reads the headers alone.
        """
        if self.is_open:
            return
        headers = request.headers.getlist("authorization")
        scheme, _, key = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
        presented = _digest(key.strip().encode("latin-1", "replace"))
        matches = [hmac.compare_digest(presented, digest) for digest in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise AccessDenied("a valid key is required: send Authorization: Bearer KEY")


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
