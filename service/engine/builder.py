"""From settings to a warm engine. Everything slow about starting is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import diffusers
import structlog
import torch
import transformers

from models.checkpoints.catalog import Checkpoint, find_checkpoints
from models.checkpoints.hub import local_folder, local_parts, verify
from models.errors import CheckpointError
from models.loader import Adapter, CheckpointFiles, load_pipeline
from models.lora.bank import NUM_SLOTS
from models.lora.files import local_lora, own_lora
from models.memory_estimate import LARGEST_SIDE, Footprint, free_host_bytes
from models.pipeline import Pipeline
from models.runtime.device import default_batch, pick_device, pick_dtype
from models.runtime.forward import CUDA_BUCKETS, CudaGraphs
from models.styles.presets import Style, load_styles
from service.engine.engine import Engine
from service.engine.scheduler import MAX_RETIREMENTS, Scheduler
from service.engine.warmup import COMPILED_SIZES, Compiler, Warmup
from service.protocol.messages import Ready
from service.settings import EngineSettings

_log = structlog.get_logger(__name__)


def load_engine(settings: EngineSettings) -> tuple[Engine, Ready]:
    """Load the checkpoint that the settings name, and say what was loaded and where.

    Raises CheckpointError or ValueError, with the cure, for what the operator must mend.
    """
    device, dtype = _place(settings)
    pipelines = load_pipelines(settings)
    max_batch = max_batch_of(settings)
    scheduler = Scheduler(
        max_batch=max_batch,
        # The front counts the waiting; those about to run may all arrive before the next step.
        max_waiting=settings.max_waiting + max_batch,
    )
    ready = Ready(
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        model=next(iter(pipelines)),
        max_batch=max_batch,
        loras={name: pipeline.adapters.names for name, pipeline in pipelines.items()},
        misfits={name: list(pipeline.adapters.misfits) for name, pipeline in pipelines.items()},
    )
    return Engine(pipelines, scheduler, warming=_warming(settings, pipelines)), ready


def load_pipelines(settings: EngineSettings) -> dict[str, Pipeline]:
    """Load the checkpoints by name, the default first. Raises as `load_engine` does."""
    _hush_libraries()
    device, dtype = _place(settings)
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)  # the default for events and graphs
    pipelines = {}
    models = settings.models or (settings.model,)
    found = list(find_checkpoints(models, settings.catalog).values())
    for checkpoint in found:
        verify(checkpoint, hashes=settings.verify == "full")
    styles = load_styles(settings.styles)
    num_slots = 1 + max(NUM_SLOTS, max_batch_of(settings))
    num_pixels = _decoded_pixels(max_batch_of(settings))
    _check_memory([_footprint(row, styles, num_slots, num_pixels) for row in found], device, dtype)
    for checkpoint in found:
        folder = local_folder(checkpoint)
        pipelines[checkpoint.name] = load_pipeline(
            CheckpointFiles(folder, **local_parts(checkpoint)),
            device=device,
            dtype=dtype,
            adapters=_adapters(folder, styles),
            max_batch=max_batch_of(settings),
            guidance_range=checkpoint.guidance_range,
            is_compiled=settings.compile != "off",
            fuses_projections=settings.compile != "off" and settings.tune == "max",
        )
    _tell_misfits(pipelines, styles)
    return pipelines


def _check_memory(footprints: Sequence[Footprint], device: str, dtype: torch.dtype) -> None:
    """Raise CheckpointError where all checkpoints do not fit, before any loads."""
    needs = {footprint.name: footprint.need(dtype.itemsize) for footprint in footprints}
    told = ", ".join(f"{name} {need.resident_bytes / 1e9:.2f} GB" for name, need in needs.items())
    working_bytes = max(need.working_bytes for need in needs.values())
    needed_bytes = sum(need.resident_bytes for need in needs.values()) + working_bytes
    host_bytes = free_host_bytes()
    is_cpu = torch.device(device).type == "cpu"
    free_bytes = host_bytes if is_cpu else torch.cuda.mem_get_info(device)[0]
    if needed_bytes > free_bytes:
        raise CheckpointError(
            f"{told} and about {working_bytes / 1e9:.2f} GB for the pictures of a step make "
            f"{needed_bytes / 1e9:.2f} GB in {dtype}, and {device} has {free_bytes / 1e9:.2f} GB "
            "free: serve fewer checkpoints, or a smaller REFINE_DTYPE or REFINE_MAX_BATCH"
        )
    passing_bytes = max(need.largest_module_bytes for need in needs.values())
    if not is_cpu and passing_bytes > host_bytes:
        raise CheckpointError(
            f"{passing_bytes / 1e9:.2f} GB of weights at a time pass through this machine's own "
            f"memory on their way to {device}, and it has {host_bytes / 1e9:.2f} GB free"
        )


def _decoded_pixels(max_batch: int) -> int:
    """Return the most pixels that a step decodes: a batch's, or the largest pictures' it may."""
    largest = LARGEST_SIDE**2
    return max(largest, min(max_batch * 512**2, MAX_RETIREMENTS * largest))


def _footprint(
    checkpoint: Checkpoint, styles: Mapping[str, Style], num_slots: int, num_pixels: int
) -> Footprint:
    folder = local_folder(checkpoint)
    return Footprint(
        checkpoint.name,
        folder,
        local_parts(checkpoint),
        adapters=[adapter.path for adapter in _adapters(folder, styles).values()],
        num_slots=num_slots,
        num_pixels=num_pixels,
    )


def _adapters(folder: Path, styles: Mapping[str, Style]) -> dict[str, Adapter]:
    """Return the LoRAs of the styles: theirs, or the checkpoint's own `loras/STYLE.safetensors`."""
    found = {}
    for style in styles.values():
        theirs = local_lora(style)
        if theirs is not None:
            found[style.name] = Adapter(theirs, style.lora_weight, may_misfit=True)
        elif (own := own_lora(folder, style)) is not None:
            found[style.name] = Adapter(own, style.lora_weight)
    return found


def _tell_misfits(pipelines: Mapping[str, Pipeline], styles: Mapping[str, Style]) -> None:
    """Log which style does not fit which checkpoint.

    Raises CheckpointError, with line and field, for a LoRA that fits none of them.
    """
    for style in styles.values():
        reasons = {
            name: pipeline.adapters.misfits[style.name]
            for name, pipeline in pipelines.items()
            if style.name in pipeline.adapters.misfits
        }
        if len(reasons) == len(pipelines):
            told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise style.fault("lora", f"it fits none of the checkpoints that are served: {told}")
        for name, reason in reasons.items():
            _log.warning(
                "a style is not available for a checkpoint: its LoRA does not fit",
                style=style.name,
                checkpoint=name,
                reason=reason,
            )


def _place(settings: EngineSettings) -> tuple[str, torch.dtype]:
    device = pick_device(settings.device)
    return device, pick_dtype(settings.dtype, device)


def max_batch_of(settings: EngineSettings) -> int:
    """Return how many rows of 512 x 512 share a UNet call on the device of the settings."""
    device, _ = _place(settings)
    return settings.max_batch or default_batch(device)


def _warming(settings: EngineSettings, pipelines: Mapping[str, Pipeline]) -> Warmup | None:
    """Return what is to be made ready: the hot shapes, if anything is compiled."""
    if settings.compile == "off":
        return None
    device, _ = _place(settings)
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda and settings.tune != "off":  # before any convolution: cuDNN keeps what it chose
        torch.backends.cudnn.benchmark = True
    warming = Warmup(
        folder=settings.package_dir,
        sizes=CUDA_BUCKETS if is_cuda else COMPILED_SIZES,
        max_batch=max_batch_of(settings),
        start_compiler=partial(Compiler, settings),
        capturer=CudaGraphs() if is_cuda else None,
    )
    for pipeline in pipelines.values():
        pipeline.buckets = CUDA_BUCKETS if is_cuda else ()
        for height, width in settings.warmup_shapes:
            warming.add(pipeline, height, width)
    return warming


def _hush_libraries() -> None:
    """Keep progress bars and remarks of the libraries out of the service's log."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    diffusers.logging.set_verbosity_error()
