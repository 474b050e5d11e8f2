"""Processes that learn together: each from rows of its own, by the mean of all their gradients.

On a CPU two processes of one thread each learn from more rows than one of two threads: threads
meet at the end of each operation, and wait there for whoever was set aside; processes meet once a
step. Every member makes the same step from the same gradients, so their weights stay equal.
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

from models.malloc import hold_memory

SEEDS_APART = 7919  # of the noise of two members


class Team:
    """A member's view of all: a team of one has nobody to wait for."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Whether this member tells of the progress and saves."""
        return self.rank == 0

    def seed(self, seed: int) -> None:
        """Seed torch so that no two members draw the same noise."""
        torch.manual_seed(seed + SEEDS_APART * self.rank)

    def share(self, rows: Tensor) -> Tensor:
        """Return this member's of rows [B, ...] that all have drawn alike."""
        return rows[self.rank :: self.size]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Set each gradient to the mean of all members'. The same ones must have gradients."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients]) / self.size
        distributed.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, torch.split(flat, sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agrees(self, *, answer: bool) -> bool:
        """Return the leader's answer: clocks differ, and all must stop after the same step."""
        if self.size == 1:
            return answer
        told = torch.tensor([answer])
        distributed.broadcast(told, 0)
        return bool(told)


ALONE = Team()


def run_together(size: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(team, *arguments)` in `size` processes of one thread each; alone, in this one.

    What is given must be picklable. Raises what any of them raises.
    """
    if size == 1:
        work(ALONE, *arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        spawn(_join, (size, meeting, work, arguments), nprocs=size)  # type: ignore[no-untyped-call]


def _join(
    rank: int, size: int, meeting: Path, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    # torch has SIGINT sent to whoever outlives the first process; a shell's background ignores it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hold_memory()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=size)
    try:
        work(Team(rank, size), *arguments)
    finally:
        distributed.destroy_process_group()
