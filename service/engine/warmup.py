"""Making forwards ready for the shapes that are served: compiled by another process, then captured.

Compiling takes minutes. A process of its own does it, and leaves packages in a folder that outlives
both; here they are loaded, compared with eager, and captured as CUDA graphs where there is CUDA,
one at a time between two steps. Until then, and where that fails, a shape runs eager.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from zipfile import is_zipfile

import structlog
import torch

from models.runtime.aot import MAX_ROWS, load_package, package_path
from models.runtime.forward import buckets_up_to
from service.engine.faults import is_sticky
from service.engine.scheduler import MAX_ADMISSIONS, MAX_RETIREMENTS
from service.protocol.jobs import rows_that_fit
from service.protocol.process_contract import SEALED
from service.settings import EngineSettings

if TYPE_CHECKING:
    from models.pipeline import Pipeline
    from models.runtime.forward import Capturer, Forward, RowFunction

    Inputs = tuple[torch.Tensor, ...]

Shape = tuple[int, int]
"""Height and width in pixels."""

LOOK_S = 1.0
"""How often it is looked whether packages have come."""

_MOST_APART = 0.05
"""How far compiled may be from eager, in standard deviations of eager's output."""

_log = structlog.get_logger(__name__)


class CompilerProcess(Protocol):
    """A process that makes packages; see `service.engine.compile_worker`."""

    def has_ended(self) -> bool: ...

    def wait(self) -> int: ...


@dataclass(frozen=True, eq=False)
class WarmupTarget:
    """A shape of a pipeline and a number of rows: what runs for them, with an example's inputs."""

    pipeline: Pipeline
    shape: Shape
    num_rows: int
    forwards: tuple[tuple[Forward, Inputs, Path], ...]  # each with its package

    def lacks_a_package(self) -> bool:
        return any(
            not forward.is_compiled(*inputs) and not path.exists()
            for forward, inputs, path in self.forwards
        )


@dataclass
class Warmup:
    """What is to be made ready, and how far it is. Belongs to the thread of the engine."""

    folder: Path
    sizes: Sequence[int]  # numbers of rows that are run, where so many share a forward
    max_batch: int  # as many at 512 x 512, and fewer where the shape is large
    start_compiler: Callable[[Sequence[Shape]], CompilerProcess]
    capturer: Capturer | None = None
    clock: Callable[[], float] = time.monotonic
    _pending: list[WarmupTarget] = field(default_factory=list)
    _warm: list[WarmupTarget] = field(default_factory=list)
    _seen: set[tuple[int, Shape]] = field(default_factory=set)  # pipeline and shape
    _tried: set[Shape] = field(default_factory=set)  # shapes that a compiler was started for
    _compiler: CompilerProcess | None = None
    _looked_at: float = float("-inf")

    @property
    def num_warm(self) -> int:
        return len(self._warm)

    @property
    def num_targets(self) -> int:
        """What is warm, and what may become so."""
        return len(self._warm) + len(self._pending)

    def warm_rows(self, pipeline: Pipeline) -> dict[str, list[int]]:
        """Return the numbers of rows that are warm, by shape, as "512x512". For any thread."""
        rows: dict[str, list[int]] = {}
        for target in tuple(self._warm):
            if target.pipeline is pipeline:
                height, width = target.shape
                rows.setdefault(f"{height}x{width}", []).append(target.num_rows)
        return {shape: sorted(numbers) for shape, numbers in rows.items()}

    def add(self, pipeline: Pipeline, height: int, width: int) -> None:
        """Let a shape be made ready, if it is not yet, with all its numbers of rows."""
        shape = (height, width)
        if (id(pipeline), shape) in self._seen:
            return
        self._seen.add((id(pipeline), shape))
        most = rows_that_fit(self.max_batch, height, width, pipeline.rows_per_row)
        for size in buckets_up_to(most, self.sizes):
            forwards = pipeline.forwards(
                height,
                width,
                size,
                encodes=size <= MAX_ADMISSIONS,
                decodes=size <= MAX_RETIREMENTS,
            )
            # Named once: to name a package takes all of its module's parameters.
            named = [
                (forward, inputs, package_path(self.folder, forward.name, forward.module, inputs))
                for forward, inputs in forwards
            ]
            self._pending.append(WarmupTarget(pipeline, shape, size, tuple(named)))

    def advance(self) -> None:
        """Take one target further, if its packages have come: called between two steps."""
        if not self._pending or self.clock() - self._looked_at < LOOK_S:
            return
        for target in self._pending:
            if not target.lacks_a_package():
                self._try_to_adopt(target)
                return
        self._looked_at = self.clock()
        self._compile_what_is_missing()

    def compile_all(self) -> None:
        """Make what is missing, and wait for it."""
        self._compile_what_is_missing()
        if self._compiler is not None:
            self._compiler.wait()

    def adopt_all(self) -> None:
        """Take up all that there is, the largest graphs first; make anew what turns out broken."""
        self._pending.sort(key=lambda target: -target.num_rows)
        while self._pending:
            self._looked_at = float("-inf")
            self.advance()
            if self._compiler is not None:
                self._compiler.wait()

    def _compile_what_is_missing(self) -> None:
        """Start a compiler for shapes that none was started for; give up what one has left out."""
        if self._compiler is not None and not self._compiler.has_ended():
            return
        missing = {target.shape for target in self._pending if target.lacks_a_package()}
        self._give_up(missing & self._tried)
        if new := sorted(missing - self._tried):
            self._tried |= set(new)
            self._compiler = self.start_compiler(new)

    def _give_up(self, shapes: set[Shape]) -> None:
        for shape in shapes:
            _log.error("a shape could not be compiled and stays eager", shape=shape)
        self._pending = [target for target in self._pending if target.shape not in shapes]

    def _try_to_adopt(self, target: WarmupTarget) -> None:
        try:
            self._adopt(target)
        except Exception as error:  # whatever a package is, eager serves in its place
            if is_sticky(error):
                raise
            _log.exception("a package cannot be used", shape=target.shape, rows=target.num_rows)
            self._pending.remove(target)

    def _adopt(self, target: WarmupTarget) -> None:
        with torch.inference_mode():
            for forward, inputs, path in target.forwards:
                if not forward.is_compiled(*inputs):
                    self._load(forward, inputs, path)
                if self.capturer is not None:
                    forward.capture(self.capturer, *inputs)
        self._pending.remove(target)
        self._warm.append(target)
        done = f"{self.num_warm} of {self.num_targets}"
        _log.info("a shape is warm", shape=target.shape, rows=target.num_rows, done=done)

    def _load(self, forward: Forward, inputs: Inputs, path: Path) -> None:
        compiled = _loaded(path, forward)
        expected, made = forward.module(*inputs).float(), compiled(*inputs).float()
        if (made - expected).abs().max() <= _MOST_APART * expected.std():
            forward.adopt(compiled, *inputs, most_rows=MAX_ROWS[inputs[0].device.type])
        else:
            _log.error("a package does not equal eager, which serves in its place", name=path.name)


def _loaded(path: Path, forward: Forward) -> RowFunction:
    """Load a package. One that is cut short is taken away, so that it is made anew."""
    try:
        return load_package(path, forward.module)
    except Exception:
        if not is_zipfile(path):
            path.unlink(missing_ok=True)
        raise


COMPILED_SIZES = (1, 2)
"""Rows: one, and any number beyond, have a package each; the second where rows share a call."""


class Compiler:
    """The process, seen from who starts it."""

    def __init__(self, settings: EngineSettings, shapes: Sequence[Shape]) -> None:
        command = [
            sys.executable, "-P", "-m", "service.engine.compile_worker",
            f"--settings={settings.model_dump_json()}", f"--shapes={json.dumps(shapes)}",
        ]  # fmt: skip
        # Nothing is ever written. The closing of the pipe ends the process.
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
            command, env={**os.environ, **SEALED}, stdin=subprocess.PIPE
        )

    def has_ended(self) -> bool:
        if self._process.poll() is None:
            return False
        self.wait()
        return True

    def wait(self) -> int:
        """Wait for the end; return the exit code, 0 where all was made."""
        exit_code = self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return exit_code
