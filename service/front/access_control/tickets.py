"""Tickets: what a page shows in place of a key, once and soon. Knows no clock: now is given."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Generic, TypeVar

LIFETIME_S = 30.0
_MOST_PER_HOLDER = 16

Holder = TypeVar("Holder")


@dataclass(frozen=True)
class _Ticket(Generic[Holder]):
    holder: Holder
    expires_s: float


class TicketBox(Generic[Holder]):
    """The tickets that are out. A holder of more than 16 loses its own oldest."""

    def __init__(self) -> None:
        self._tickets: dict[bytes, _Ticket[Holder]] = {}

    def issue(self, holder: Holder, now_s: float) -> str:
        """Return a new ticket of a holder."""
        self._forget_expired(now_s)
        own = [digest for digest, ticket in self._tickets.items() if ticket.holder == holder]
        if len(own) >= _MOST_PER_HOLDER:
            del self._tickets[own[0]]
        text = secrets.token_urlsafe(32)
        self._tickets[_digest(text)] = _Ticket(holder, now_s + LIFETIME_S)
        return text

    def redeem(self, text: str, now_s: float) -> Holder | None:
        """Take a ticket back; return its holder, or None where it is unknown, used or too old."""
        ticket = self._tickets.pop(_digest(text), None)
        return ticket.holder if ticket is not None and now_s <= ticket.expires_s else None

    def _forget_expired(self, now_s: float) -> None:
        # All live equally long, so that the oldest come first.
        while self._tickets and next(iter(self._tickets.values())).expires_s < now_s:
            del self._tickets[next(iter(self._tickets))]


def _digest(text: str) -> bytes:
    # Looked up by its digest, so the time of the look-up reveals nothing of a ticket.
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
