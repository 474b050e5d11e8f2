"""What a checkpoint's folder says of itself, before any weights are loaded. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import CheckpointError

TEXT_WEIGHTS = "model.safetensors"
WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIGS: Mapping[str, Sequence[str]] = {
    "checkpoint": ("model_index.json", "*/config.json", "scheduler/scheduler_config.json"),
    "tiny": ("config.json", WEIGHTS),
}
SUPPORTED = {
    "unet": {"UNet2DConditionModel"},
    "vae": {"AutoencoderKL", "AutoencoderTiny"},
    "text_encoder": {"CLIPTextModel"},
    "text_encoder_2": {"CLIPTextModelWithProjection"},
    "tokenizer": {"CLIPTokenizer", "CLIPTokenizerFast"},
    "tokenizer_2": {"CLIPTokenizer", "CLIPTokenizerFast"},
}
_BETAS = {  # schedulers whose config holds the betas that an LCM-LoRA goes by
    "LCMScheduler", "PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "LMSDiscreteScheduler",
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler",
}  # fmt: skip
_LEFT_ALONE = {"safety_checker", "feature_extractor", "image_encoder"}
_WEIGHTY = ["unet", "vae", "text_encoder", "text_encoder_2"]
_TOKENIZERS = ["tokenizer", "tokenizer_2"]
_LIBRARIES = {"diffusers", "transformers"}
_FAMILIES = {768: "SD 1.5", 1024: "SD 2"}  # by the width of their text
_SDXL = "text_time"


@dataclass(frozen=True)
class Layout:
    """Of which family a checkpoint is, and how it is guided and made an LCM."""

    family: str  # "SD 1.5", "SDXL", or another
    has_guidance_embedding: bool
    needs_lora: bool  # its scheduler is no LCM's: it becomes one by an LCM-LoRA

    @property
    def title(self) -> str:
        """The kind in words."""
        if self.needs_lora:
            return f"{self.family} with an LCM-LoRA"
        guided = "a guidance embedding" if self.has_guidance_embedding else "doubled rows"
        return f"{self.family} LCM with {guided}"


def read_layout(folder: Path, where: str) -> Layout:
    """Return a checkpoint's kind from its configs, and check that all its parts are known.

    `where` is what errors call it. Raises CheckpointError, by name, for a component or class that
    is not supported, and for code of its own.
    """
    index = read_index(folder, where)
    unet = read_json(folder / "unet" / "config.json")
    scheduler = class_name(index, "scheduler")
    for name in [*components(index), *(name for name in _TOKENIZERS if any(index.get(name) or ()))]:
        check_class(where, index, name)
        _check_own_code(folder, where, index, name)
    _check_channels(folder, where, unet)
    is_embedded = bool(unet.get("time_cond_proj_dim"))
    needs_lora = scheduler != "LCMScheduler"
    check_scheduler(where, scheduler, is_joined=not is_embedded)
    return Layout(_family(where, unet), is_embedded, needs_lora)


def components(index: dict[str, Any]) -> list[str]:
    """Return the folders that hold weights: two text encoders where the index names a second."""
    has_second = any(index.get("text_encoder_2") or ())
    return [*_WEIGHTY[:3], *(_WEIGHTY[3:] if has_second else [])]


def weights_name(component: str) -> str:
    """Return the one file that the loader reads a component's weights from."""
    return TEXT_WEIGHTS if component.startswith("text_encoder") else WEIGHTS


def patterns(replaced: Collection[str] = ()) -> tuple[str, ...]:
    """Return which files the loader reads: no pickles, no code, and no part that is replaced."""
    found = ["model_index.json", "scheduler/scheduler_config.json"]
    found += [f"{tokenizer}/*.{end}" for tokenizer in _TOKENIZERS for end in ("json", "txt")]
    for component in _WEIGHTY:
        if component not in replaced:
            found += [f"{component}/config.json", f"{component}/{weights_name(component)}"]
    return tuple(found)


def needed_files(index: dict[str, Any]) -> list[str]:
    """Return the files without which a checkpoint cannot be loaded; tokenizers have several."""
    found = ["model_index.json", "scheduler/scheduler_config.json"]
    for component in components(index):
        found += [f"{component}/config.json", f"{component}/{weights_name(component)}"]
    return found


def check_files(where: str, wanted: Collection[str], names: Collection[str]) -> None:
    """Raise CheckpointError where a file is not among those of a folder, telling what is."""
    for name in wanted:
        if name not in names:
            folder = name.rpartition("/")[0]
            beside = sorted(other for other in names if other.rpartition("/")[0] == folder)
            raise CheckpointError(f"{where} has no {name}{_instead(beside)}")


def check_class(where: str, index: dict[str, Any], name: str) -> str:
    """Return a component's class. Raises CheckpointError for one that is not supported."""
    found = class_name(index, name)
    if found not in SUPPORTED[name]:
        known = ", ".join(sorted(SUPPORTED[name]))
        raise CheckpointError(f"{where}: {name} is a {found}; supported are {known}")
    return found


def check_scheduler(where: str, name: str, *, is_joined: bool) -> None:
    """Raise CheckpointError where the scheduler makes no LCM; `is_joined`: another part does."""
    if name not in _BETAS or (name != "LCMScheduler" and not is_joined):
        raise CheckpointError(
            f"{where}: the scheduler is a {name}, not an LCMScheduler: this is no latent "
            "consistency model; `instant-refine models add` joins an LCM-LoRA to it"
        )


def read_index(folder: Path, where: str) -> dict[str, Any]:
    """Read `model_index.json`. Raises CheckpointError for an unknown component."""
    index = read_json(folder / "model_index.json")
    known = {*SUPPORTED, "scheduler", *_LEFT_ALONE}
    for name, entry in index.items():
        if isinstance(entry, list) and any(entry) and name not in known:
            raise CheckpointError(f"{where}: the component {name} is not supported")
    return index


def class_name(index: dict[str, Any], name: str) -> str:
    """Return the class that the index names for a component; its library is never imported."""
    return _entry(index, name)[1]


def read_json(path: Path) -> dict[str, Any]:
    """Read a config. Raises CheckpointError where it is missing, or no JSON object."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path.parent.name}/{path.name} is missing or not JSON: not a diffusers checkpoint"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.parent.name}/{path.name} holds no JSON object")
    return value


def _entry(index: dict[str, Any], name: str) -> tuple[str, str]:
    entry = index.get(name)
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], str):  # noqa: PLR2004 - [library, class]
        raise CheckpointError(f"model_index.json names no {name}")
    return str(entry[0]), entry[1]


def _family(where: str, unet: dict[str, Any]) -> str:
    kind = unet.get("addition_embed_type")
    if kind not in {None, _SDXL}:
        raise CheckpointError(f"{where}: the UNet's addition_embed_type {kind} is not known")
    return "SDXL" if kind == _SDXL else _FAMILIES.get(unet.get("cross_attention_dim") or 0, "SD")


def _check_own_code(folder: Path, where: str, index: dict[str, Any], name: str) -> None:
    """Raise CheckpointError for a component that is meant to be loaded by code beside it."""
    library, kind = _entry(index, name)
    if library not in _LIBRARIES:
        raise CheckpointError(
            f"{where}: {name} is a {kind} of {library}: code of a checkpoint is never run"
        )
    if not name.startswith("tokenizer") and "auto_map" in read_json(folder / name / "config.json"):
        raise CheckpointError(
            f"{where}: {name}/config.json has an auto_map: code of a checkpoint is never run"
        )


def _check_channels(folder: Path, where: str, unet: dict[str, Any]) -> None:
    made = read_json(folder / "vae" / "config.json").get("latent_channels", 4)
    taken = unet.get("in_channels", made)
    if taken != made:
        raise CheckpointError(
            f"{where}: the UNet takes {taken} channels and the autoencoder makes {made}"
        )


def _instead(beside: Collection[str]) -> str:
    """Say what lies where weights were looked for."""
    for ends, what in (
        ((".bin", ".ckpt", ".pt", ".pth"), "a pickle, which could run code and is never read"),
        ((".index.json",), "of weights in several files, which are not supported"),
        ((".fp16.safetensors",), "a variant, which is not looked for: rename it"),
    ):
        found = [name for name in beside if name.endswith(ends)]
        if found:
            return f"; {found[0]} is {what}"
    return ""
