"""Whether a picture can be made now, and if not, why not, in the words of the wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from service.engine_client.base import EngineHealth
from service.front.state import Front


@dataclass(frozen=True)
class Health:
    """The state of the front and its engine for callers; `pending` counts jobs in the engine."""

    ready: bool
    state: str
    phase: str
    reason: str
    pending: int

    def to_content(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def health_of(front: Front) -> Health:
    """Return the front's health at this moment."""
    engine = front.client.health
    is_ready = engine.state == "serving" and not front.is_draining
    return Health(
        ready=is_ready,
        state="draining" if front.is_draining else engine.state,
        phase=engine.phase,
        reason="" if is_ready else _reason(front, engine),
        pending=engine.num_pending,
    )


def _reason(front: Front, engine: EngineHealth) -> str:
    if front.is_draining:
        return "the service is about to end"
    return {
        "starting": f"the engine is starting: {engine.phase}",
        "restarting": f"the engine ended and is starting again: {engine.phase}",
        "failed": "the engine could not start; its log says why",
    }.get(engine.state, "the engine is not running")
