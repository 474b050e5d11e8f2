"""Memory that was freed: the system has it again, and what is loaded is out of the collections."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from models.malloc import KIB

# Threads free pictures of growing sizes, each below something small that stays, as requests do.
HOARD = """
import random, sys, threading
from models.malloc import bound_malloc

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4 / 1024

def work(seed):
    rng, most = random.Random(seed), 200_000
    for _ in range(40):
        pictures = [bytearray(b"x") * rng.randrange(100_000, most) for _ in range(4)]
        kept.append(bytes(2_000))
        del pictures
        most = min(most + 50_000, 2_000_000)

if len(sys.argv) > 1:
    bound_malloc(int(sys.argv[1]))
kept, before = [], resident_mb()
threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident_mb() - before)
"""


# What is large was freed, and what is small among it is still there: holes that no limit closes.
HOLES = """
from models.malloc import bound_malloc, give_back

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4 / 1024

bound_malloc(32 << 20)
before, kept = resident_mb(), []
for _ in range(20):
    large = bytearray(b"x") * 3_000_000
    kept.append((large, bytearray(b"y") * 2_000))
kept = [small for _, small in kept]
del large
held = resident_mb() - before
give_back()
print(held, resident_mb() - before)
"""


# A layer's activations, one after another: 40 MB are 10,240 pages.
BUFFERS = """
import resource, sys
from models.malloc import give_back, disable_mmap

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4 / 1024

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if len(sys.argv) > 1:
    disable_mmap()
before, seen = resident_mb(), faults()
for _ in range(10):
    buffer = bytearray(40_000_000)
    del buffer
seen = faults() - seen
give_back()
print(seen, resident_mb() - before)
"""


def grown_mb(*arguments: str, **environment: str) -> float:
    command = [sys.executable, "-c", HOARD, *arguments]
    env = {**os.environ, **environment}
    return float(subprocess.run(command, env=env, capture_output=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc")
def test_what_was_freed_is_given_back() -> None:
    """Eight threads that draw and free pictures leave 1 MB where malloc is bounded, else 8."""
    assert grown_mb(str(128 * KIB)) < 3 < grown_mb()


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc")
def test_holes_in_the_heap_are_given_back() -> None:
    """Of 60 MB that were freed below small things that stay the heap keeps 40 or more, then 2."""
    command = [sys.executable, "-c", HOLES]
    output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    held, left = (float(number) for number in output.split())
    assert held > 40
    assert left < 2


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc")
def test_an_engine_faults_its_pages_in_once_and_gives_them_back() -> None:
    """Ten buffers of 40 MB in turn cost the faults of one where memory is held, else of ten."""

    def run(*arguments: str) -> tuple[float, float]:
        command = [sys.executable, "-c", BUFFERS, *arguments]
        output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        faults, left_mb = map(float, output.split())
        return faults, left_mb

    (held, left_mb), (mapped, _) = run("held"), run()
    assert held < 15_000
    assert mapped > 90_000
    assert left_mb < 2


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc")
def test_the_operators_word_holds() -> None:
    """A bound that the environment sets is left as it is."""
    variables = {
        "MALLOC_ARENA_MAX": "8",
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    }
    assert grown_mb(str(128 * KIB), **variables) > 3


FREEZE = """
import asyncio, gc
from models.malloc import start_gc_thread

start_gc_thread()
print(gc.get_freeze_count(), len(gc.get_objects()))
"""


def test_what_is_loaded_is_frozen() -> None:
    """Afterwards a full collection has only what is new to look at."""
    command = [sys.executable, "-c", FREEZE]
    told = subprocess.run(command, capture_output=True, check=True).stdout
    frozen, looked_at = map(int, told.split())
    assert frozen > 100 * max(1, looked_at)
