"""The rows of a forward dealt out to the cores of a processor, each core its own rows.

Within one forward all threads meet at the end of every operation, and of two cores between a tenth
and a half is lost there. Rows need not meet before the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache

import torch

_here = threading.local()


@dataclass(frozen=True)
class Share:
    """`count` rows of a forward's, from `first` on."""

    first: int
    count: int


def shares_of(num_rows: int, num_cores: int) -> list[Share]:
    """Deal rows out to as many threads as there are rows or cores, one more to the first ones."""
    num_shares = min(num_rows, num_cores)
    least, more = divmod(num_rows, num_shares)
    counts = [least + (place < more) for place in range(num_shares)]
    return [Share(sum(counts[:place]), count) for place, count in enumerate(counts)]


def deal(function: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Call a function of rows, the first dimension of all inputs, on shares of them at once."""
    num_cores, is_inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    shares = shares_of(len(inputs[0]), num_cores)
    if len(shares) == 1:
        return function(*inputs)

    def run(share: Share) -> torch.Tensor:
        _here.share = share
        try:
            with torch.inference_mode(is_inference):
                return function(*(rows.narrow(0, share.first, share.count) for rows in inputs))
        finally:
            _here.share = None

    threads = _threads(len(shares), num_cores // len(shares))
    runs = [threads.submit(run, share) for share in shares]
    wait(runs)  # also after a failure: the inputs change next
    return torch.cat([done.result() for done in runs])


def local_rows(rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Return those of rows [most, ...] that belong to the `num_rows` rows of this thread's share.

    A function's rows may be a multiple of what was dealt out: guidance doubles them.
    """
    share: Share | None = getattr(_here, "share", None)
    first = 0 if share is None else share.first * (num_rows // share.count)
    return rows[first : first + num_rows]


@cache
def _threads(count: int, cores_each: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "core", torch.set_num_threads, (cores_each,))
