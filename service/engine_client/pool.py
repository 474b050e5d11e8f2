"""Several engines behind one client: a device each, the least work first, a dead one left out.

Each member supervises its own engine and starts it anew when it ends; the pool only chooses. A
job that is lost with its engine is the caller's to send again, and then goes to another one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from service.engine_client.base import EngineClient, EngineHealth, OnProgress
from service.engine_client.local import LocalEngineClient
from service.engine_client.supervisor import State
from service.errors import QueueFull, RefineError

if TYPE_CHECKING:
    from service.protocol.jobs import Finished, GenerationParams, Pixels
    from service.settings import Settings

_BEST_FIRST: tuple[State, ...] = ("serving", "starting", "restarting", "failed", "stopped")


class EnginePool:
    """A client of several engines; see `EngineClient`. Used from one event loop."""

    def __init__(self, members: Sequence[EngineClient]) -> None:
        self._members = tuple(members)
        self._work = [0.0] * len(self._members)  # of the jobs under way, in steps x pixels

    @property
    def health(self) -> EngineHealth:
        """The health of the best member, with those of all in `members`."""
        members = tuple(member.health for member in self._members)
        best = min(members, key=lambda health: _BEST_FIRST.index(health.state))
        num_pending = sum(health.num_pending for health in members)
        return replace(
            best,
            num_pending=num_pending,
            members=members,
            is_crash_looping=all(health.is_crash_looping for health in members),
        )

    async def start(self) -> None:
        for member in self._members:
            await member.start()

    async def stop(self) -> None:
        await asyncio.gather(*(member.stop() for member in self._members))

    async def wait_until(self, *states: State) -> EngineHealth:
        while self.health.state not in states:
            await self._any_change()
        return self.health

    def check_accepts(self, caller: str = "", timeout_s: float = math.inf) -> None:
        self._pick(caller, timeout_s)

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
        index, work = self._pick(caller, timeout_s), params.work
        self._work[index] += work
        try:
            return await self._members[index].generate(
                params,
                image,
                timeout_s=timeout_s,
                mask=mask,
                on_progress=on_progress,
                caller=caller,
            )
        finally:
            self._work[index] -= work

    def _pick(self, caller: str, timeout_s: float) -> int:
        """Return the member with the least work of those that accept any.

        Raises what the members raise when none does: QueueFull if one is only full.
        """
        refusals: list[RefineError] = []
        for index in sorted(range(len(self._members)), key=self._work.__getitem__):
            try:
                self._members[index].check_accepts(caller, timeout_s)
            except RefineError as refusal:
                refusals.append(refusal)
            else:
                return index
        raise min(refusals, key=lambda refusal: not isinstance(refusal, QueueFull))

    async def _any_change(self) -> None:
        """Wait until a member leaves the state that it is in."""
        waits = [
            asyncio.ensure_future(member.wait_until(*_others(member.health.state)))
            for member in self._members
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def local_client(settings: Settings) -> EngineClient:
    """Return a client of the engines on this machine that the settings ask for."""
    members = [LocalEngineClient(engine) for engine in settings.engines()]
    return members[0] if len(members) == 1 else EnginePool(members)


def _others(state: State) -> tuple[State, ...]:
    return tuple(other for other in get_args(State) if other != state)
