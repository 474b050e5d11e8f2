"""Token buckets: how often something may happen, for one caller or for many strangers."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from service.api_keys import Rate
from service.errors import RateLimited

WRONG_KEYS: Final = Rate(60, 60.0)
_MAX_PEERS: Final = 4096
_ROUNDING: Final = 1e-6


class TokenBucket:
    """`rate.count` tokens, filled again within `rate.period_s`. `now` is in seconds."""

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate.count)
        self._filled_at = now

    @property
    def rate(self) -> Rate:
        return self._rate

    def take(self, now: float) -> int:
        """Take a token and return 0, or return the whole seconds until there is one."""
        per_s = self._rate.count / self._rate.period_s
        self._tokens = min(self._rate.count, self._tokens + (now - self._filled_at) * per_s)
        self._filled_at = now
        if self._tokens >= 1 - _ROUNDING:
            self._tokens -= 1
            return 0
        return max(1, math.ceil((1 - _ROUNDING - self._tokens) / per_s))


class FailedAuthLimiter:
    """Counts wrong keys by the address they come from; forgets who has been quiet longest."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, rate: Rate = WRONG_KEYS
    ) -> None:
        self._clock = clock
        self._rate = rate
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def count(self, peer: str) -> None:
        """Raise RateLimited when more came than the rate has."""
        now = self._clock()
        bucket = self._buckets.setdefault(peer, TokenBucket(self._rate, now))
        self._buckets.move_to_end(peer)
        if len(self._buckets) > _MAX_PEERS:
            self._buckets.popitem(last=False)
        wait_s = bucket.take(now)
        if wait_s:
            raise RateLimited("too many wrong keys came from this address", retry_after_s=wait_s)
