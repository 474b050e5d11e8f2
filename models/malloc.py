"""What a process does with memory that it has freed: it uses it again or gives it back.

By default it hoards. glibc gives each thread an arena of its own, up to eight for each core, and
raises the size from which a buffer is mapped, and so given back when it is freed, to that of the
largest that was: each arena in time keeps a share as large as the largest pictures. Of a front
that had 20 MB in use 14 arenas kept 30 MB after 250 hostile requests and 90 MB after 2,500, still
growing; with one arena and a bound that stays it keeps 1 to 6 MB.

And Python looks for garbage among old objects only when a quarter as many have become old since,
which, by the libraries' own, may be hours; then it looks through all of them at once. Until then
it also keeps up to 2,000 freed tuples of each length: by its heartbeats alone an idle engine grew
by 1 kB a second for a quarter of an hour. So what is loaded is left out, and a collection of the
rest is made every minute: it takes 0.1 ms, where all took 49 ms in a front, 340 ms in an engine.

What is smaller than the bound leaves holes in the heap. An engine that was asked for upscales, of 3
to 7 MB each among small things, grew by 3 to 6 MB every few minutes while what it used did not. So
the pages of holes are given back every minute, too, and by an engine that has nothing to do.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Mapping
from typing import Final

KIB: Final = 1 << 10

_COLLECT_S: Final = 60.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8  # malloc.h
_ENDLESS = (1 << 31) - 1  # an int is what mallopt takes


def bound_malloc(mapped_bytes: int) -> None:
    """Use one arena, and map what is as large as `mapped_bytes`, for as long as it is in use.

    To be called before there are threads. A variable MALLOC_... of the operator's holds instead;
    nothing happens where the allocator is not glibc's.
    """
    _set_malloc(
        {
            "MALLOC_ARENA_MAX": (_M_ARENA_MAX, 1),
            "MALLOC_MMAP_THRESHOLD_": (_M_MMAP_THRESHOLD, mapped_bytes),
            "MALLOC_TRIM_THRESHOLD_": (_M_TRIM_THRESHOLD, 2 * mapped_bytes),
        }
    )


def disable_mmap() -> None:
    """Use one arena, map nothing, and keep what is freed until it is given back.

    A mapped buffer's pages are faulted in anew each time, 4 KiB by 4 KiB. The same holds of it as
    of `bound_malloc`.
    """
    _set_malloc(
        {
            "MALLOC_ARENA_MAX": (_M_ARENA_MAX, 1),
            "MALLOC_MMAP_MAX_": (_M_MMAP_MAX, 0),
            "MALLOC_TRIM_THRESHOLD_": (_M_TRIM_THRESHOLD, _ENDLESS),
        }
    )


def _set_malloc(options: Mapping[str, tuple[int, int]]) -> None:
    """Set options of malloc by the variables that would set them otherwise."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for variable, (option, value) in options.items():
        if mallopt is not None and variable not in os.environ:
            mallopt(option, value)


def start_gc_thread() -> None:
    """Leave what is there by now out of all collections of garbage, and make one every minute."""
    gc.collect()
    gc.freeze()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def give_back() -> None:
    """Give the kernel the free pages of the heap, also those between what is in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _collect() -> None:
    while True:
        time.sleep(_COLLECT_S)
        gc.collect()
        give_back()
