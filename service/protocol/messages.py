"""Messages between the front and an engine process: framed and length-checked, never pickled.

A frame is two big-endian lengths, a JSON header that names the message, and its arrays of pixels
one after another. Either side reads on a thread of its own, because a picture of 3 MB does not
fit the 64 kB that a socket holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from service.protocol.jobs import Failed, Finished, Job, Progress


@dataclass(frozen=True)
class Add:
    """Front to engine: a new job."""

    job: Job


@dataclass(frozen=True)
class Abort:
    """Front to engine: drop this job; its caller has gone."""

    job_id: str


@dataclass(frozen=True)
class Heartbeat:
    """Engine to front, from a thread of its own: what the engine is doing, and how much.

    `phase` is loading, compiling, warming or serving. `num_jobs` are all that the engine knows of,
    `num_waiting` those without a slot, `num_running` rows in slots, of which `max_batch` share a
    step at most, at 512 x 512. `step_running_s` is how long the running step has taken,
    `step_p99_s` what 99 of 100 take, `adopting_s` how long it takes up what was compiled, between
    two steps. The counts are since the start, see `EngineStats`; bytes are
    the device's, as torch has them, and the process' own; `num_blocks` are the objects of its
    Python. `warm` are the numbers of rows that are compiled, by checkpoint and shape; `num_warm` of
    `num_targets` are so in all.
    """

    phase: str
    num_jobs: int = 0
    num_waiting: int = 0
    num_running: int = 0
    max_batch: int = 0
    step_running_s: float = 0.0
    step_p99_s: float = 0.0
    adopting_s: float = 0.0
    num_unet_calls: int = 0
    num_padded_rows: int = 0
    num_recompiles: int = 0
    max_batch_seen: int = 0
    batch_sizes: list[int] = field(default_factory=list)
    num_aborted: int = 0
    num_expired: int = 0
    num_failed: int = 0
    num_fp32_retries: int = 0
    num_not_finite: int = 0
    num_out_of_memory: int = 0
    allocated_bytes: int = 0
    reserved_bytes: int = 0
    resident_bytes: int = 0
    num_blocks: int = 0
    num_warm: int = 0
    num_targets: int = 0
    warm: dict[str, dict[str, list[int]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """Engine to front, once: the checkpoints are loaded and warm on this device in this dtype.

    `loras` are the styles that have a LoRA, `misfits` those whose LoRA does not fit, by checkpoint.
    """

    device: str
    dtype: str
    model: str
    max_batch: int
    loras: dict[str, list[str]] = field(default_factory=dict)
    misfits: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fatal:
    """Engine to front, before it ends: a reason that the operator can act on."""

    message: str


@dataclass(frozen=True)
class Sick:
    """Engine to front: the device answers nothing any more, and the process is about to end."""

    reason: str


Message = Add | Abort | Heartbeat | Ready | Fatal | Sick | Finished | Failed | Progress
