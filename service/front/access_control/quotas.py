"""What each caller may have: requests at a time, and how often. Sockets are in `seats.py`."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from service.errors import RateLimited
from service.front.access_control.keyring import Caller
from service.front.access_control.token_bucket import TokenBucket

_SMOOTHING: Final = 0.2


class Quotas:
    """Counts by a caller's id, and refuses what goes over its limits. From the event loop alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests: Counter[str] = Counter()
        self._buckets: dict[str, TokenBucket] = {}
        self._mean_request_s = 1.0

    @contextmanager
    def request(self, caller: Caller, *, is_counted: bool = False) -> Iterator[None]:
        """Count a request while it runs. Raises RateLimited over the caller's number or rate.

        One that `is_counted` has been against the rate before, and waited.
        """
        self._check_concurrency(caller)
        if not is_counted:
            self._check_rate(caller)
        started = self._clock()
        with _counted(self._requests, caller.id):
            yield
        self._mean_request_s += _SMOOTHING * (self._clock() - started - self._mean_request_s)

    def _check_concurrency(self, caller: Caller) -> None:
        most = caller.limits.concurrent
        if most is not None and self._requests[caller.id] >= most:
            # One of them ends, on the average, after this long.
            wait_s = math.ceil(self._mean_request_s / max(1, most))
            raise RateLimited(
                f"this key may have {most} requests at a time", retry_after_s=max(1, wait_s)
            )

    def _check_rate(self, caller: Caller) -> None:
        rate = caller.limits.rate
        if rate is None:
            return
        now = self._clock()
        bucket = self._buckets.get(caller.id)
        if bucket is None or bucket.rate != rate:
            bucket = self._buckets[caller.id] = TokenBucket(rate, now)
        wait_s = bucket.take(now)
        if wait_s:
            raise RateLimited(
                f"this key may ask {rate.count} times in {rate.period_s:.0f} s",
                retry_after_s=wait_s,
            )


@contextmanager
def _counted(counter: Counter[str], key: str) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if counter[key] == 0:
            del counter[key]
