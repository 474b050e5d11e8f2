"""Lanes that may be timed: those that load and make the same picture as the first lane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import structlog
import torch

from benchmarks.core.experiment import Session
from benchmarks.core.jobs import varied_jobs
from benchmarks.lanes.base import Lane
from benchmarks.lanes.engine import EngineLane
from benchmarks.lanes.registry import LaneFactory, LaneSpec
from service.protocol.jobs import Job, Pixels

_MAX_DIFFERENCE = {torch.float32: 1, torch.float16: 12, torch.bfloat16: 24}  # of 255 levels
_LOADING_SHARE = 0.6  # of the budget; a lane that is not loaded by then waits for the next run

_log = structlog.get_logger(__name__)


def load_verified(
    specs: Sequence[LaneSpec], factory: LaneFactory, probe: Job, session: Session
) -> tuple[dict[str, Lane], dict[str, str]]:
    """Load lanes and compare each with the first. Returns lanes and faults, by name.

    A fault of one lane costs no other its row. Without the first there is no comparison, so its
    exception is raised, and so is that of a lost device.
    """
    lanes: dict[str, Lane] = {}
    faults: dict[str, str] = {}
    reference: Pixels | None = None
    for spec in session.each(specs, "loading", _LOADING_SHARE):
        try:
            lane = spec.make(factory)
            pictures = {"alone": lane.picture(probe)}
            if reference is None:
                reference = pictures["alone"]
            if isinstance(lane, EngineLane):
                neighbours = varied_jobs(3, probe.params.height)
                pictures["in a batch"] = lane.pictures([probe, *neighbours])[probe.id]
            _check(lane.name, pictures, reference, _MAX_DIFFERENCE[factory.setup.dtype])
            lanes[spec.name] = lane
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if reference is None:
                raise
            _log.exception("a lane is not timed", lane=spec.name)
            faults[spec.name] = str(error).partition("\n")[0]
    return lanes, faults


def _check(name: str, pictures: dict[str, Pixels], reference: Pixels, max_difference: int) -> None:
    """Raise ValueError if a picture differs from the reference by more than some levels."""
    for where, picture in pictures.items():
        difference = int(np.abs(picture.astype(int) - reference).max())
        if difference > max_difference:
            raise ValueError(
                f"{name} {where}: {difference} levels from the first lane's picture, "
                f"at most {max_difference} are allowed"
            )
