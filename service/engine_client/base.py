"""How the front reaches an engine: the interface that every engine client implements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from service.engine_client.supervisor import EndReason, State
from service.protocol.jobs import Finished, Progress
from service.protocol.messages import Heartbeat, Ready

if TYPE_CHECKING:
    from service.protocol.jobs import GenerationParams, Pixels


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class EngineHealth:
    """The state of an engine: `phase` of its last heartbeat, `message` why it failed.

    `members` are the engines behind it, where there are several. `ends` counts engines that ended
    unasked, by reason; where they do so over and over, it `is_crash_looping`.
    """

    state: State
    phase: str = "none"
    ready: Ready | None = None
    heartbeat: Heartbeat | None = None
    num_pending: int = 0
    message: str = ""
    members: tuple[EngineHealth, ...] = ()
    ends: Mapping[EndReason, int] = field(default_factory=dict)
    is_crash_looping: bool = False
    estimated_wait_s: float = 0.0


class EngineClient(Protocol):
    """How the front reaches an engine, wherever it runs."""

    @property
    def health(self) -> EngineHealth: ...

    async def start(self) -> None:
        """Begin to start the engine; return at once."""
        ...

    async def stop(self) -> None:
        """End the engine; what still runs fails."""
        ...

    async def wait_until(self, *states: State) -> EngineHealth:
        """Wait until the engine is in one of the states; return its health."""
        ...

    def check_accepts(self, caller: str = "", timeout_s: float = math.inf) -> None:
        """Raise what `generate` would raise at once, whatever the job is."""
        ...

    async def generate(
        self,
        params: GenerationParams,
        image: Pixels,
        *,
        timeout_s: float,
        mask: Pixels | None = None,
        on_progress: OnProgress | None = None,
        caller: str = "",
    ) -> Finished:
        """Make the pictures of one job from `image`, uint8 [H, W, 3]; see `Job` for the mask.

        `caller` names whose share of the engine it is. Cancelling the call aborts the job. Raises
        QueueFull, RateLimited, EngineStarting, EngineRestarting, DeadlineExceeded or
        GenerationFailed.
        """
        ...
