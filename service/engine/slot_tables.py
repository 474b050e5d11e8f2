"""The tensors of the rows in flight: one table per shape, one index per slot.

What differs between rows stands in tables on the device, so that a step gathers its inputs by
two small index vectors whatever the rows' timesteps are. Key of shapes: S slots, N steps,
C h w latents, L tokens, D text width, E guidance width, B rows of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from models.lcm import NUM_COEFFICIENTS
from models.runtime.transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.pipeline import Conditioning
    from service.engine.scheduler import Key, Row

MAX_STEPS = 16
"""The most steps that a row may run: the bound of the API."""


@dataclass(frozen=True)
class RowInputs:
    """What one row needs for all its steps.

    `latents` [C, h, w] already noised, `clean` the same before, `mask` [1, h, w] 0 where they
    stay, `noise` [N - 1, C, h, w], `coefficients` [N, 6], `timesteps` N numbers.
    """

    latents: torch.Tensor
    clean: torch.Tensor
    mask: torch.Tensor
    noise: torch.Tensor
    coefficients: torch.Tensor
    timesteps: Sequence[int]
    conditioning: Conditioning


@dataclass(frozen=True)
class StepInputs:
    """What one step of B rows reads, gathered: `latents`, `noise` [B, C, h, w], and so on.

    `slots` [B] are those that it was gathered from.
    """

    slots: torch.Tensor
    latents: torch.Tensor
    clean: torch.Tensor
    mask: torch.Tensor
    noise: torch.Tensor
    coefficients: torch.Tensor
    timesteps: torch.Tensor
    conditioning: Conditioning


class SlotTable:
    """The rows of one shape and checkpoint. A slot's content is written whole before it is read.

    `like` is a row of that kind: the tables are made for its shapes.
    """

    def __init__(self, like: RowInputs, *, num_slots: int) -> None:
        channels = like.latents.shape  # C, h, w
        dtype, device = like.latents.dtype, like.latents.device

        def table(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
            return torch.zeros(num_slots, *shape, dtype=dtype, device=device)

        self.latents = table(*channels)  # [S, C, h, w]
        self.clean = table(*channels)  # [S, C, h, w]
        self.mask = table(1, *channels[1:])  # [S, 1, h, w]
        self.noise = table(MAX_STEPS, *channels)  # [S, N, C, h, w]; the last step's stays zero
        self.coefficients = table(MAX_STEPS, NUM_COEFFICIENTS, dtype=torch.float32)  # [S, N, 6]
        self.timesteps = table(MAX_STEPS, dtype=torch.int64)  # [S, N]
        self.conditioning = like.conditioning.map(
            lambda part: table(*part.shape, dtype=part.dtype)
        )  # [S, ...]

    def write(self, slot: int, inputs: RowInputs) -> None:
        """Fill a slot with a new row."""
        num_steps = len(inputs.timesteps)
        self.latents[slot].copy_(inputs.latents)
        self.clean[slot].copy_(inputs.clean)
        self.mask[slot].copy_(inputs.mask)
        self.noise[slot].zero_()
        self.noise[slot, : num_steps - 1].copy_(self._here(inputs.noise))
        self.coefficients[slot, :num_steps].copy_(self._here(inputs.coefficients))
        self.timesteps[slot, :num_steps].copy_(self._here(torch.tensor(inputs.timesteps)))
        for name, part in vars(inputs.conditioning).items():
            if part is not None:
                getattr(self.conditioning, name)[slot].copy_(part)

    def poison(self, slot: int) -> None:
        """Fill a freed slot with NaN, so a read of an unwritten slot shows."""
        own = (self.latents, self.clean, self.mask, self.noise, self.coefficients)
        shared = [part for part in vars(self.conditioning).values() if part is not None]
        for tensor in (*own, *shared):
            tensor[slot].fill_(float("nan"))

    def gather(self, rows: Sequence[Row]) -> StepInputs:
        """Collect what the next step of these rows reads."""
        index = torch.tensor([[row.slot for row in rows], [row.step for row in rows]])  # [2, B]
        slots, steps = self._here(index)  # in one copy
        return StepInputs(
            slots=slots,
            latents=self.latents[slots],
            clean=self.clean[slots],
            mask=self.mask[slots],
            noise=self.noise[slots, steps],
            coefficients=self.coefficients[slots, steps],
            timesteps=self.timesteps[slots, steps],
            conditioning=self.conditioning.map(lambda table: table[slots]),
        )

    def gather_latents(self, rows: Sequence[Row]) -> torch.Tensor:
        """Return a copy of the rows' latents [B, C, h, w]."""
        return self.latents[self._here(torch.tensor([row.slot for row in rows]))]

    def scatter(self, slots: torch.Tensor, latents: torch.Tensor) -> None:
        """Put rows' next latents [B, C, h, w] into their slots [B]."""
        self.latents[slots] = latents

    def _here(self, tensor: torch.Tensor) -> torch.Tensor:
        return to_device(tensor, self.latents.device)


class SlotTables:
    """The table of each key, made when its first row comes."""

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._tables: dict[Key, SlotTable] = {}

    def __getitem__(self, key: Key) -> SlotTable:
        return self._tables[key]

    def of(self, row: Row, like: RowInputs) -> SlotTable:
        """Return the table of a row, which `like` is what it needs."""
        if row.key not in self._tables:
            self._tables[row.key] = SlotTable(like, num_slots=self._num_slots)
        return self._tables[row.key]

    def poison(self, slots: Sequence[int]) -> None:
        """Fill freed slots with NaN in all tables."""
        for table in self._tables.values():
            for slot in slots:
                table.poison(slot)
