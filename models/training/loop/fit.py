"""The loop that every stage runs: it keeps the pace, shows progress and saves."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from models.training.loop.checkpoint import Budget
from models.training.loop.data_parallel import ALONE, Team
from models.training.loop.thread_tuner import Pace

SHOWN_EVERY = 20


class Run(Protocol):
    """A stage in progress."""

    name: str

    @property
    def seen(self) -> int:
        """How many pictures (or captions) it has learned from, all runs together."""
        ...

    def step(self, factor: float) -> Tensor:
        """Learn from one batch at `factor` of the full learning rate; return the loss."""
        ...

    def save(self) -> None:
        """Write the state; take up what came new on disk."""
        ...


def fit(run: Run, budget: Budget, *, save_every: int, team: Team = ALONE) -> None:
    """Step until the budget is spent, saving now and then and at the end."""
    bar = tqdm(desc=run.name, mininterval=10, disable=not team.leads)
    pace, losses = Pace(), []
    while not team.agrees(answer=budget.over):
        pace.tick()
        losses.append(run.step(budget.rate).detach())
        budget.steps += 1
        bar.update()
        if len(losses) == SHOWN_EVERY:
            bar.set_postfix(loss=f"{torch.stack(losses).mean().item():.4f}", seen=run.seen)
            losses.clear()
        if budget.steps % save_every == 0 and team.leads:
            run.save()
    if team.leads:
        run.save()
    bar.close()
