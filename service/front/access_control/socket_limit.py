"""How many sockets are open at once: of strangers, of each caller, and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from service.errors import RateLimited

_RETRY_AFTER_S = 5


class SocketLimit:
    """The open sockets. Who has not said a key yet takes no seat from those who have."""

    def __init__(self, most: int, most_per_caller: int) -> None:
        self._most = most
        self._most_per_caller = most_per_caller
        self._num_strangers = 0
        self._taken: Counter[Hashable] = Counter()

    @property
    def num_taken(self) -> int:
        return self._taken.total()

    @contextmanager
    def stranger(self) -> Iterator[None]:
        """Hold a place until the greeting. Raises RateLimited where too many stand there."""
        if self._num_strangers >= self._most:
            raise RateLimited("too many sockets are being opened", retry_after_s=_RETRY_AFTER_S)
        self._num_strangers += 1
        try:
            yield
        finally:
            self._num_strangers -= 1

    @contextmanager
    def taken_by(self, caller: Hashable | None, most: int | None = None) -> Iterator[None]:
        """Hold a seat, one of the caller's `most` where that is given.

        None is anybody, who is not counted apart. Raises RateLimited.
        """
        most = self._most_per_caller if most is None else most
        if self.num_taken >= self._most:
            raise RateLimited("too many sockets are open", retry_after_s=_RETRY_AFTER_S)
        if caller is not None and self._taken[caller] >= most:
            sentence = f"a key may have {most} sockets open"
            raise RateLimited(sentence, retry_after_s=_RETRY_AFTER_S)
        self._taken[caller] += 1
        try:
            yield
        finally:
            self._taken[caller] -= 1
            if not self._taken[caller]:
                del self._taken[caller]
