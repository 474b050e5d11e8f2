"""What the parts of a row's way through the engine share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.engine.batching import Checkpoints
    from service.engine.in_flight import OverlapQueue
    from service.engine.job_state import States
    from service.engine.scheduler import Scheduler
    from service.engine.slot_tables import SlotTables
    from service.engine.stats import EngineStats


@dataclass(frozen=True)
class Shared:
    """The rows of an engine, their jobs and tensors, and the way to and from the device."""

    checkpoints: Checkpoints
    states: States
    tables: SlotTables
    flights: OverlapQueue
    scheduler: Scheduler
    stats: EngineStats


class Stage:
    """A part of a row's way."""

    def __init__(self, shared: Shared) -> None:
        self._checkpoints = shared.checkpoints
        self._states = shared.states
        self._tables = shared.tables
        self._flights = shared.flights
        self._scheduler = shared.scheduler
        self._stats = shared.stats
