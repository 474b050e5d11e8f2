"""The bytes of bodies that are held at once, from the first one to the decoded picture."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Self

from service.errors import QueueFull, RateLimited


class BodyBudget:
    """At most `most_bytes` in all, and half of them of one caller who has a name.

    A body of `largest_bytes` fits in any case, if it is alone. Used from one event loop.
    """

    def __init__(self, most_bytes: int, largest_bytes: int) -> None:
        self._most_bytes = max(most_bytes, largest_bytes)
        self._most_of_one = max(most_bytes // 2, largest_bytes)
        self._held: Counter[str] = Counter()

    @property
    def num_bytes(self) -> int:
        return self._held.total()

    def hold(self, caller: str) -> BudgetedBody:
        """Return a body that has no bytes yet; it is to be released."""
        return BudgetedBody(self, caller)

    def add(self, caller: str, num_bytes: int) -> None:
        """Count bytes in. Raises RateLimited or QueueFull, and counts none then."""
        if caller and self._held[caller] + num_bytes > self._most_of_one:
            raise RateLimited("the bodies of this key's requests are too large together")
        if self.num_bytes + num_bytes > self._most_bytes:
            raise QueueFull("too many bodies are being read, try again later")
        self._held[caller] += num_bytes

    def remove(self, caller: str, num_bytes: int) -> None:
        self._held[caller] -= num_bytes
        if not self._held[caller]:
            del self._held[caller]


class BudgetedBody:
    """A body as it comes in, counted until it is released."""

    def __init__(self, bodies: BodyBudget, caller: str) -> None:
        self._bodies = bodies
        self._caller = caller
        self._content = bytearray()
        self._num_counted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __len__(self) -> int:
        return len(self._content)

    def append(self, chunk: bytes) -> None:
        """Raises what `BodyBudget.add` does."""
        self.resize(self._num_counted + len(chunk))
        self._content += chunk

    def resize(self, num_bytes: int) -> None:
        """Count so many bytes, which lie elsewhere. Raises what `BodyBudget.add` does, to grow."""
        if num_bytes > self._num_counted:
            self._bodies.add(self._caller, num_bytes - self._num_counted)
        else:
            self._bodies.remove(self._caller, self._num_counted - num_bytes)
        self._num_counted = num_bytes

    def take(self) -> bytes:
        """Give the content away, which still counts until it is released."""
        content, self._content = bytes(self._content), bytearray()
        return content

    def release(self) -> None:
        """Count it no more. Once is enough, and more do no harm."""
        self._content = bytearray()
        self.resize(0)
