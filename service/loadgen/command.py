"""`instant-refine bench`: run a load with a progress bar, and print the results."""

from __future__ import annotations

import asyncio
import json

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from service.loadgen.loops import Load, Run, Target, run_load
from service.loadgen.report import figures, to_table
from service.loadgen.workload import Trace


def bench(
    target: Target, trace: Trace, load: Load, *, limit_ms: float, out: Console, err: Console
) -> bool:
    """Put a load on a server; print a table and a line of JSON; True when any picture came."""
    run = asyncio.run(_with_progress(target, trace, load, err))
    values = {
        "url": target.url + target.route,
        "load": str(load),
        "trace": "mixed" if trace.is_mixed else f"{trace.steps} steps at {trace.size}",
        **figures(run, limit_ms),
    }
    err.print(to_table(values))
    out.print_json(json.dumps(values), indent=None)
    return bool(values["pictures_per_s"])


async def _with_progress(target: Target, trace: Trace, load: Load, err: Console) -> Run:
    columns = (TextColumn("{task.completed} answers"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("", total=None)
        return await run_load(target, trace.bodies(), load, lambda _: progress.advance(task))
