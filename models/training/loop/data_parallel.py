"""Data-parallel training: each process learns from its rows, by the mean of all gradients.

On a CPU two processes of one thread each learn from more rows than one process of two threads.
Threads synchronise after each operation and wait there for a thread that was descheduled; processes
synchronise once a step. Every process takes the same step, so their weights stay equal.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn

from models.malloc import disable_mmap

SEED_STRIDE = 7919  # between the seeds of two processes


class DataParallel:
    """A process's view of its group; in a group of one, every operation is the identity."""

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size

    @property
    def is_main(self) -> bool:
        """Whether this process shows the progress and saves."""
        return self.rank == 0

    def seed(self, seed: int) -> None:
        """Seed torch with different noise in every process."""
        torch.manual_seed(seed + SEED_STRIDE * self.rank)

    def shard(self, rows: Tensor) -> Tensor:
        """Return this process's part of rows [B, ...] that are equal in all processes."""
        return rows[self.rank :: self.world_size]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Set each gradient to its mean over the processes; all must have the same gradients."""
        if self.world_size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients]) / self.world_size
        distributed.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, torch.split(flat, sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def broadcast(self, *, flag: bool) -> bool:
        """Return the main process's flag: clocks differ, and all must stop after the same step."""
        if self.world_size == 1:
            return flag
        value = torch.tensor([flag])
        distributed.broadcast(value, 0)
        return bool(value)


SINGLE_PROCESS = DataParallel()


def launch(world_size: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(group, *arguments)` in `world_size` processes of one thread each.

    A group of one runs in this process. The arguments must be picklable. Raises
    ProcessRaisedException where a process raises.
    """
    if world_size == 1:
        work(SINGLE_PROCESS, *arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = (Path(folder) / "rendezvous").as_uri()
        spawn(_run, (world_size, rendezvous, work, arguments), nprocs=world_size)  # type: ignore[no-untyped-call]


def _run(
    rank: int,
    world_size: int,
    rendezvous: str,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    # torch sends SIGINT to processes whose parent has died; a shell's background jobs ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    disable_mmap()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
    try:
        work(DataParallel(rank, world_size), *arguments)
    finally:
        distributed.destroy_process_group()
