"""A checkpoint's files -> `Pipeline`. Safetensors only, no remote code, no network."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

os.environ.setdefault("DIFFUSERS_DISABLE_REMOTE_CODE", "true")

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from models.autoencoder import Autoencoder
from models.checkpoints.layout import (
    WEIGHTS,
    check_class,
    check_scheduler,
    class_name,
    read_index,
    read_json,
    weights_name,
)
from models.checkpoints.safetensors_header import read_header
from models.errors import CheckpointError
from models.lcm import LCMSchedule
from models.lora.bank import NUM_SLOTS, AdapterBank, rank_of
from models.lora.parse import Lora, fuse, read_lora
from models.pipeline import Pipeline
from models.runtime.attention import fuse_projections
from models.text_encoder import PromptEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

_CLASSES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        UNet2DConditionModel,
        AutoencoderKL,
        AutoencoderTiny,
        CLIPTextModel,
        CLIPTextModelWithProjection,
    )
}
_SDXL = "text_time"


@dataclass(frozen=True)
class CheckpointFiles:
    """Where the parts of a checkpoint lie on this machine.

    `folder` is in diffusers' layout. `unet` and `vae` are folders that stand in for its own,
    `tiny` one with an `AutoencoderTiny` beside it, `lora` an LCM-LoRA that is fused at load.
    """

    folder: Path
    unet: Path | None = None
    vae: Path | None = None
    tiny: Path | None = None
    lora: Path | None = None


@dataclass(frozen=True)
class Adapter:
    """The LoRA file of a style, and how strongly it is applied.

    One that `may_misfit` is left out of a checkpoint that it does not fit: it was not made for it.
    """

    path: Path
    weight: float = 1.0
    may_misfit: bool = False


@dataclass(frozen=True)
class _Place:
    """Where modules are loaded to."""

    device: str
    dtype: torch.dtype
    name: str = field(default="")  # of the checkpoint, for errors


def load_pipeline(
    files: CheckpointFiles,
    *,
    device: str,
    dtype: torch.dtype,
    adapters: Mapping[str, Adapter] | None = None,
    max_batch: int = 1,
    guidance_range: tuple[float, float] = (1.0, 2.0),
    is_compiled: bool = False,
    fuses_projections: bool = False,
) -> Pipeline:
    """Load a latent consistency checkpoint onto a device, with the LoRAs of its styles.

    `adapters` are by the name of their style, `max_batch` the most rows of a forward; where the
    forwards will be compiled, adapters take part in all of them (`is_compiled`). Those that are
    left out stand in the `misfits` of the pipeline's adapters. Raises CheckpointError, naming the
    file and what is wrong with it, for a folder that is not such a checkpoint or that holds a
    component which is not supported.
    """
    index = read_index(files.folder, files.folder.name)
    place = _Place(device, dtype, files.folder.name)
    unet = _load_unet(files, index, place)
    is_sdxl = unet.config.addition_embed_type == _SDXL
    names = ["text_encoder", *(["text_encoder_2"] if is_sdxl else [])]
    encoders = {name: _load_module(files.folder, name, index, place) for name in names}
    roots = {"unet": unet, **encoders}
    if files.lora is not None:
        fuse(read_lora(files.lora, roots), roots)
    return Pipeline(
        unet=unet,
        autoencoders={
            name: Autoencoder(vae, name)
            for name, vae in _load_vaes(files, index, place, unet).items()
        },
        prompts=PromptEncoder(
            [_load_tokenizer(files.folder, f"tokenizer{name[12:]}", index) for name in names],
            list(encoders.values()),
            has_zero_negative=bool(index.get("force_zeros_for_empty_prompt", is_sdxl)) and is_sdxl,
        ),
        schedule=_load_schedule(files, index),
        guidance_range=guidance_range,
        adapters=_bank(
            roots,
            adapters or {},
            max_batch=max_batch,
            is_always_active=is_compiled,
            fuses_projections=fuses_projections,
        ),
    )


def _bank(
    roots: Mapping[str, nn.Module],
    adapters: Mapping[str, Adapter],
    *,
    max_batch: int,
    is_always_active: bool,
    fuses_projections: bool,
) -> AdapterBank:
    loras: dict[str, Lora] = {}
    misfits: dict[str, str] = {}
    for name, adapter in adapters.items():
        try:
            lora = read_lora(adapter.path, roots, weight=adapter.weight)
            rank_of(adapter.path.name, lora)
        except CheckpointError as error:
            if not adapter.may_misfit:
                raise
            misfits[name] = str(error)
        else:
            loras[name] = lora
    if fuses_projections:
        fuse_projections(roots["unet"], {layer for lora in loras.values() for layer in lora})
    device: torch.device = roots["unet"].device  # type: ignore[assignment]
    return AdapterBank(
        roots,
        loras,
        num_slots=max(NUM_SLOTS, max_batch),
        device=device,
        is_always_active=is_always_active,
        misfits=misfits,
    )


def _load_unet(files: CheckpointFiles, index: dict[str, Any], place: _Place) -> Any:
    if files.unet is None:
        unet = _load_module(files.folder, "unet", index, place)
    else:
        unet = _load(files.unet, UNet2DConditionModel, WEIGHTS, "unet", place)
    kind = unet.config.addition_embed_type
    if kind not in {None, _SDXL, "text"}:  # "text" pools the prompt that the UNet has anyway
        raise CheckpointError(f"{place.name}: the UNet's addition_embed_type {kind} is not known")
    for name in ("class_embed_type", "encoder_hid_dim", "num_class_embeds"):
        if unet.config.get(name):
            raise CheckpointError(f"{place.name}: the UNet's {name} is not supported")
    if kind == _SDXL and index.get("requires_aesthetics_score"):
        raise CheckpointError(f"{place.name}: requires_aesthetics_score: a refiner is no LCM")
    return unet


def _load_vaes(
    files: CheckpointFiles, index: dict[str, Any], place: _Place, unet: Any
) -> dict[str, Any]:
    if files.vae is None:
        vae = _load_module(files.folder, "vae", index, place)
    else:
        vae = _load(files.vae, AutoencoderKL, WEIGHTS, "vae", place)
    # That of SDXL overflows in fp16 and makes black pictures; its config says so. The config of
    # SD 1.5 says so by default, where it is not true.
    is_sdxl = unet.config.addition_embed_type == _SDXL
    if is_sdxl and vae.config.get("force_upcast") and place.dtype == torch.float16:
        vae = vae.to(torch.float32)
    vaes = {"full": vae}
    if files.tiny is not None:
        vaes["tiny"] = _load(files.tiny, AutoencoderTiny, WEIGHTS, "tiny autoencoder", place)
    for part in vaes.values():
        _check_vae(place.name, unet.config, part.config)
    return vaes


def _load_module(folder: Path, name: str, index: dict[str, Any], place: _Place) -> Any:
    kind = check_class(place.name, index, name)
    return _load(folder / name, _CLASSES[kind], weights_name(name), name, place)


def _load(folder: Path, kind: Any, weights: str, name: str, place: _Place) -> Any:
    try:
        read_header(folder / weights)
        module, found = kind.from_pretrained(
            folder,
            dtype=place.dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # a config of other people's raises anything in diffusers
        raise CheckpointError(f"{place.name}: {name} cannot be loaded: {error}") from error
    # The libraries only warn, and fill what is missing with random numbers.
    strange = set(found["unexpected_keys"]) if name == "unet" else set()
    if keys := sorted(set(found["missing_keys"]) | strange):
        raise CheckpointError(f"{place.name}: {name}'s weights do not fit its config: {keys[0]}")
    module = module.to(place.device).eval().requires_grad_(False)  # noqa: FBT003 - torch's signature
    # Convolutions are faster on channels-last weights: UNet 15 %, decoder 30 % on a CPU.
    is_text = weights.startswith("model")
    return module if is_text else module.to(memory_format=torch.channels_last)


def _load_tokenizer(folder: Path, name: str, index: dict[str, Any]) -> Any:
    check_class(folder.name, index, name)
    try:
        return CLIPTokenizer.from_pretrained(folder / name, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"{folder.name}: {name} cannot be loaded: {error}") from error


def _load_schedule(files: CheckpointFiles, index: dict[str, Any]) -> LCMSchedule:
    """Read the betas. A plain checkpoint's own are those of the LCM that is joined to it."""
    name, folder = class_name(index, "scheduler"), files.folder
    is_joined = files.unet is not None or files.lora is not None
    check_scheduler(folder.name, name, is_joined=is_joined)
    config = read_json(folder / "scheduler" / "scheduler_config.json")
    try:
        return LCMSchedule.from_config(config)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder.name}: the scheduler's config: {error}") from error


def _check_vae(name: str, unet_config: Any, config: Any) -> None:
    if config.get("shift_factor"):
        raise CheckpointError(f"{name}: the autoencoder's shift_factor is not supported")
    if (config.get("latents_mean") is None) != (config.get("latents_std") is None):
        raise CheckpointError(f"{name}: the autoencoder has one of latents_mean and latents_std")
    if unet_config.in_channels != config.latent_channels:
        raise CheckpointError(
            f"{name}: the UNet takes {unet_config.in_channels} channels and the autoencoder "
            f"makes {config.latent_channels}"
        )
