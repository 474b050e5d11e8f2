"""The training loop of every stage: a time budget, optimizer steps, progress and saving."""

from __future__ import annotations

import time
from typing import Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.training.loop.data_parallel import SINGLE_PROCESS, DataParallel
from models.training.loop.thread_tuner import ThreadTuner

LOG_EVERY = 20  # steps


class Budget:
    """A number of minutes, and the learning rate's factor within them."""

    def __init__(self, minutes: float, warmup_steps: int = 100, decay: float = 0.3) -> None:
        self.seconds = minutes * 60
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.steps = 0
        self._start = time.monotonic()

    @property
    def spent(self) -> float:
        """The share of the budget that is spent, 0 to 1."""
        return min(1.0, (time.monotonic() - self._start) / max(self.seconds, 1e-6))

    @property
    def is_spent(self) -> bool:
        return self.spent >= 1.0

    @property
    def factor(self) -> float:
        """Warm up by steps, hold, then fall linearly to a twentieth over the last `decay`."""
        warmup = min(1.0, (self.steps + 1) / self.warmup_steps)
        return warmup * max(min(1.0, (1 - self.spent) / self.decay), 0.05)


class TrainingRun(Protocol):
    """A stage in progress."""

    name: str

    @property
    def seen(self) -> int:
        """The number of images (or captions) learned from, over all runs."""
        ...

    def step(self, factor: float) -> Tensor:
        """Learn from one batch at `factor` of the full learning rate; return the loss."""
        ...

    def save(self) -> None:
        """Write the state, and load new chunks of the data set from disk."""
        ...


def fit(
    run: TrainingRun, budget: Budget, *, save_every: int, group: DataParallel = SINGLE_PROCESS
) -> None:
    """Step until the budget is spent; save every `save_every` steps and at the end."""
    bar = tqdm(desc=run.name, mininterval=10, disable=not group.is_main)
    tuner, losses = ThreadTuner(), []
    while not group.broadcast(flag=budget.is_spent):
        tuner.before_step()
        losses.append(run.step(budget.factor).detach())
        budget.steps += 1
        bar.update()
        if len(losses) == LOG_EVERY:
            bar.set_postfix(loss=f"{torch.stack(losses).mean().item():.4f}", seen=run.seen)
            losses.clear()
        if budget.steps % save_every == 0 and group.is_main:
            run.save()
    if group.is_main:
        run.save()
    bar.close()


def optimizer_step(
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    net: nn.Module,
    rate: float,
    *,
    gradient: Tensor | None = None,
    group: DataParallel = SINGLE_PROCESS,
    max_norm: float = 1.0,
) -> None:
    """Take a step at learning rate `rate`, with the gradients' norm clipped to `max_norm`.

    `gradient` is that of a `loss` which is no scalar. The gradients are averaged over `group`.
    """
    for parameters in optimizer.param_groups:
        parameters["lr"] = rate
    optimizer.zero_grad()
    torch.autograd.backward(loss, gradient)
    group.average_gradients(net.parameters())
    nn.utils.clip_grad_norm_(net.parameters(), max_norm)
    optimizer.step()
