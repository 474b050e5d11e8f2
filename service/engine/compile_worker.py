"""The compiler process: makes the missing packages for the given shapes, then ends.

Started by an engine as `python -m service.engine.compile_worker`, or by `instant-refine warm`. It
loads the checkpoint itself, so it shares nothing with the process that serves. It ends with that
one: what it holds of a GPU is the next engine's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from rich.console import Console
from rich.progress import track

from service.engine.warmup import COMPILED_SIZES
from service.logs import configure_logging
from service.protocol.jobs import rows_that_fit
from service.settings import EngineSettings

if TYPE_CHECKING:
    from service.engine.warmup import Shape

_NICENESS = 10
_LONGEST_S = 24 * 3600.0  # no package takes so long to make


_log = structlog.get_logger(__name__)


def compile_shapes(settings: EngineSettings, shapes: Sequence[Shape]) -> int:
    """Make the packages that are missing; return how many could not be made."""
    import torch  # noqa: PLC0415 - seconds, and not for the engine that imports this module

    from models.runtime.aot import compile_package, package_path  # noqa: PLC0415
    from models.runtime.forward import buckets_up_to  # noqa: PLC0415
    from service.engine.builder import load_pipelines, max_batch_of  # noqa: PLC0415

    _sweep(settings.package_dir)
    max_batch = max_batch_of(settings)
    wanted = {}
    for pipeline in load_pipelines(settings).values():
        for height, width in shapes:
            most = rows_that_fit(max_batch, height, width, pipeline.rows_per_row)
            for size in buckets_up_to(most, COMPILED_SIZES):
                for forward, inputs in pipeline.forwards(height, width, size):
                    path = package_path(settings.package_dir, forward.name, forward.module, inputs)
                    wanted[path] = (forward.module, inputs)
    missing = {path: given for path, given in wanted.items() if not path.exists()}
    num_failed = 0
    console = Console(stderr=True)
    # With `full` an operator waits; `background` compiles below the lines of a service's log.
    has_bar = settings.compile == "full" and console.is_terminal
    each = track(missing.items(), "compiling", console=console, disable=not has_bar)
    for number, (path, (module, inputs)) in enumerate(each, start=1):
        if not has_bar:
            _log.info("compiling", package=path.stem, number=f"{number} of {len(missing)}")
        try:
            compile_package(
                module, inputs, path,
                picks_attention=settings.tune != "off", autotunes=settings.tune == "max",
            )  # fmt: skip
        except Exception:  # noqa: BLE001 - the others may go through, and eager serves this one
            _log.exception("a package could not be made", package=path.stem)
            num_failed += 1
        torch._dynamo.reset()  # noqa: SLF001 - its documented name; frees what the export kept
    return num_failed


def _sweep(folder: Path) -> None:
    """Take away what compilers that were killed have left half made."""
    for path in folder.glob(".*.tmp.pt2"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _LONGEST_S:
                path.unlink()


def _end_with_parent() -> None:
    """Wait until who started this has ended, however it did, and end."""
    os.read(0, 1)  # not `sys.stdin`, whose lock this would hold at the interpreter's end
    os._exit(1)


def main() -> int:
    """Compile, at a priority below that of the engine; return the exit code."""
    parser = argparse.ArgumentParser(prog="service.engine.compile_worker")
    parser.add_argument("--settings", required=True, help="EngineSettings as JSON")
    parser.add_argument("--shapes", required=True, help="[[height, width], ...] as JSON")
    arguments = parser.parse_args()
    settings = EngineSettings.model_validate_json(arguments.settings)
    configure_logging(settings.log_format)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    os.nice(_NICENESS)
    return min(1, compile_shapes(settings, json.loads(arguments.shapes)))


if __name__ == "__main__":
    sys.exit(main())
