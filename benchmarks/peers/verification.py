"""Which lanes take part: those that can be made, and make the picture that the first one makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import structlog
import torch
from rich.progress import Progress

from benchmarks.core.budget import Budget
from benchmarks.core.jobs import varied_jobs
from benchmarks.lanes.base import Lane
from benchmarks.lanes.engine import EngineLane
from benchmarks.lanes.registry import Contender, Team
from service.jobs import Job, Pixels

_MOST_LEVELS_APART = {torch.float32: 1, torch.float16: 12, torch.bfloat16: 24}

_log = structlog.get_logger(__name__)


class LaneFault(Exception):
    """What keeps a lane from being timed."""


def enter(
    contenders: Sequence[Contender],
    team: Team,
    probe: Job,
    budget: Budget,
    progress: Progress,
) -> tuple[dict[str, Lane], dict[str, str]]:
    """Load lanes and hold each against the first, until the budget is spent.

    Returns them by letter, and why others stay out: speed is of equal pictures, and one lane's
    fault costs no other its row. Without the first there is nothing: what it raises is raised.
    """
    lanes: dict[str, Lane] = {}
    faults: dict[str, str] = {}
    reference: Pixels | None = None
    task = progress.add_task("loading", total=len(contenders))
    for one in contenders:
        if budget.is_spent:
            break
        try:
            lane = one.make(team)
            reference = _checked(lane, reference, probe, _MOST_LEVELS_APART[team.place.dtype])
            lanes[one.letter] = lane
        except torch.AcceleratorError:
            raise  # the device is sick: no lane would run on it
        except Exception as error:
            if reference is None:
                raise
            _log.exception("a lane is not timed", lane=one.letter)
            faults[one.letter] = str(error).partition("\n")[0]
        progress.advance(task)
    return lanes, faults


def _checked(lane: Lane, reference: Pixels | None, probe: Job, most: int) -> Pixels:
    """Return the reference, which the first lane makes. Raises LaneFault for another picture."""
    picture = lane.picture(probe)
    if reference is None:
        return picture
    pictures = {"alone": picture}
    if isinstance(lane, EngineLane):
        company = varied_jobs(3, probe.params.height)
        pictures["in company"] = lane.pictures([probe, *company])[probe.id]
    for where, made in pictures.items():
        apart = int(np.abs(made.astype(int) - reference).max())
        if apart > most:
            raise LaneFault(f"{lane.name} {where} is {apart} levels from the first lane's picture")
    return reference
