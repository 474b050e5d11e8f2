"""A checkpoint's files -> `Pipeline`. Safetensors only, no remote code, no network."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

os.environ.setdefault("DIFFUSERS_DISABLE_REMOTE_CODE", "true")

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from models.adapters import NUM_SLOTS, AdapterBank, rank_of
from models.autoencoder import Autoencoder
from models.catalog import CheckpointError
from models.lcm import LCMSchedule
from models.lora import Lora, fuse, read_lora
from models.pipeline import Pipeline
from models.prompts import PromptEncoder
from models.weights import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

_VAES = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
_CLASSES: dict[str, dict[str, Any]] = {
    "unet": {"UNet2DConditionModel": UNet2DConditionModel},
    "vae": _VAES,
    "text_encoder": {"CLIPTextModel": CLIPTextModel},
    "text_encoder_2": {"CLIPTextModelWithProjection": CLIPTextModelWithProjection},
}
_TOKENIZERS = {"CLIPTokenizer", "CLIPTokenizerFast"}
_BETAS = {  # schedulers whose config holds the betas that an LCM-LoRA goes by
    "LCMScheduler", "PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "LMSDiscreteScheduler",
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler",
}  # fmt: skip
_LEFT_ALONE = {"safety_checker", "feature_extractor", "image_encoder"}
_WEIGHTS = "diffusion_pytorch_model.safetensors"
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
) -> Pipeline:
    """Load a latent consistency checkpoint onto a device, with the LoRAs of its styles.

    `adapters` are by the name of their style, `max_batch` the most rows of a forward; where the
    forwards will be compiled, adapters take part in all of them (`is_compiled`). Those that are
    left out stand in the `misfits` of the pipeline's adapters. Raises CheckpointError, naming the
    file and what is wrong with it, for a folder that is not such a checkpoint or that holds a
    component which is not supported.
    """
    index = _read_index(files.folder)
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
        adapters=_bank(roots, adapters or {}, max_batch=max_batch, is_always_active=is_compiled),
    )


def _bank(
    roots: Mapping[str, nn.Module],
    adapters: Mapping[str, Adapter],
    *,
    max_batch: int,
    is_always_active: bool,
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
        unet = _load(files.unet, UNet2DConditionModel, _WEIGHTS, "unet", place)
    kind = unet.config.addition_embed_type
    if kind not in {None, _SDXL}:
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
        vae = _load(files.vae, AutoencoderKL, _WEIGHTS, "vae", place)
    # That of SDXL overflows in fp16 and makes black pictures; its config says so. The config of
    # SD 1.5 says so by default, where it is not true.
    is_sdxl = unet.config.addition_embed_type == _SDXL
    if is_sdxl and vae.config.get("force_upcast") and place.dtype == torch.float16:
        vae = vae.to(torch.float32)
    vaes = {"full": vae}
    if files.tiny is not None:
        vaes["tiny"] = _load(files.tiny, AutoencoderTiny, _WEIGHTS, "tiny autoencoder", place)
    for part in vaes.values():
        _check_vae(place.name, unet.config, part.config)
    return vaes


def _load_module(folder: Path, name: str, index: dict[str, Any], place: _Place) -> Any:
    class_name, known = _class_name(index, name), _CLASSES[name]
    if class_name not in known:
        raise CheckpointError(
            f"{place.name}: {name} is a {class_name}; supported are {', '.join(known)}"
        )
    weights = "model.safetensors" if name.startswith("text_encoder") else _WEIGHTS
    return _load(folder / name, known[class_name], weights, name, place)


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
    class_name = _class_name(index, name)
    if class_name not in _TOKENIZERS:
        raise CheckpointError(f"{folder.name}: {name} is a {class_name}; supported: CLIPTokenizer")
    try:
        return CLIPTokenizer.from_pretrained(folder / name, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"{folder.name}: {name} cannot be loaded: {error}") from error


def _load_schedule(files: CheckpointFiles, index: dict[str, Any]) -> LCMSchedule:
    """Read the betas. A plain checkpoint's own are those of the LCM that is joined to it."""
    name, folder = _class_name(index, "scheduler"), files.folder
    is_joined = files.unet is not None or files.lora is not None
    if name not in _BETAS or (name != "LCMScheduler" and not is_joined):
        raise CheckpointError(
            f"{folder.name}: the scheduler is a {name}, not an LCMScheduler: this is no latent "
            "consistency model; a row of models/catalog.toml can join an LCM-LoRA to it"
        )
    config = _read_json(folder / "scheduler" / "scheduler_config.json")
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


def _read_index(folder: Path) -> dict[str, Any]:
    """Read `model_index.json`. Raises CheckpointError for a component that nobody here knows."""
    index = _read_json(folder / "model_index.json")
    known = {*_CLASSES, "scheduler", "tokenizer", "tokenizer_2", *_LEFT_ALONE}
    for name, entry in index.items():
        if isinstance(entry, list) and any(entry) and name not in known:
            raise CheckpointError(f"{folder.name}: the component {name} is not supported")
    return index


def _class_name(index: dict[str, Any], name: str) -> str:
    """Return the class that the index names for a component; its library is never imported."""
    entry = index.get(name)
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], str):  # noqa: PLR2004 - [library, class]
        raise CheckpointError(f"model_index.json names no {name}")
    return entry[1]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path.parent.name}/{path.name} is missing or not JSON: not a diffusers checkpoint"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.parent.name}/{path.name} holds no JSON object")
    return value
