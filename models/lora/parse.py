"""A LoRA file -> low-rank factors by the module that they belong to, or fused into weights.

Read are the namings of peft, of diffusers (its old one too) and of kohya, over linear and
convolution layers of the UNet and the text encoders. What else a file holds is refused by name:
a picture made without it would be wrong without a word.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file

from models.checkpoints.safetensors_header import read_header
from models.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

_FACTOR = re.compile(
    r"^(?P<module>.+?)(?:\.lora_(?P<ab>[AB])(?:\.default)?|\.lora_(?P<kohya>down|up)"
    r"|(?:_lora|\.lora|\.lora_linear_layer)\.(?P<old>down|up))\.weight$"
)
_KOHYA_ROOTS = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
_REFUSED = {
    "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", "lokr_": "LoKr", "hada_": "LoHa",
    "lora_mid": "a Tucker decomposition", "oft_": "OFT", "diff": "whole weights",
    "bias": "a bias", "norm": "a norm", "emb": "an embedding",
}  # fmt: skip
_REFUSED_SETTINGS = ("use_dora", "fan_in_fan_out", "modules_to_save", "layer_replication")


@dataclass(frozen=True)
class LowRank:
    """What is added to one layer: `up` [out, r] @ `down` [r, in], or [r, in, k, k]; scaled."""

    down: torch.Tensor
    up: torch.Tensor

    @property
    def rank(self) -> int:
        return len(self.down)


Lora = dict[str, LowRank]
"""By module: the root, and its path in it, such as `unet.mid_block.resnets.0.conv1`."""


def read_lora(path: Path, roots: Mapping[str, nn.Module], *, weight: float = 1.0) -> Lora:
    """Read a safetensors file for the modules of `roots`, such as `unet` and `text_encoder`.

    `weight`, the file's alphas and the settings of an `adapter_config.json` beside it are folded
    into the factors. Raises CheckpointError for a key or setting that is not supported, and for a
    module that the checkpoint does not have or has in another shape.
    """
    header = read_header(path)
    settings = _settings(path, header.get("__metadata__") or {})
    tensors = load_file(path)
    if any("input_blocks" in name or "output_blocks" in name for name in tensors):
        tensors = _from_sgm(tensors, roots["unet"], path)
    names = _Names(roots)
    factors: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        module, kind = _parse(key, path)
        factors.setdefault(names.find(module, path), {})[kind] = tensor
    return {
        module: _low_rank(module, parts, settings, names.modules[module], weight, path)
        for module, parts in factors.items()
    }


def factor_shapes(path: Path) -> dict[str, tuple[list[int], list[int]]]:
    """Return the shapes of the factors, `down` and `up`, by layer, without loading them.

    A layer has one name, see `plain_name`, whatever the naming of its file; only SDXL's blocks may
    be called as in the original code. Raises CheckpointError for a file that is not whole, or whose
    keys are not supported.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for key, entry in read_header(path).items():
        if key != "__metadata__":
            module, kind = _parse(key, path)
            found.setdefault(plain_name(module), {})[kind] = entry["shape"]
    return {
        layer: (parts["down"], parts["up"])
        for layer, parts in found.items()
        if {"down", "up"} <= parts.keys() and parts["down"][0] > 0
    }


def fuse(lora: Lora, roots: Mapping[str, nn.Module]) -> None:
    """Add a LoRA to the weights for good; computed in fp32 whatever their dtype."""
    modules = _Names(roots).modules
    with torch.no_grad():
        for name, factors in lora.items():
            weight = modules[name].weight
            delta = factors.up.float() @ factors.down.float().flatten(1)  # [out, in * k * k]
            fused = weight.float() + delta.view(weight.shape).to(weight.device)
            weight.copy_(fused)


class _Names:
    """The layers that a LoRA may change, under every name that a file may call them by."""

    def __init__(self, roots: Mapping[str, nn.Module]) -> None:
        self.modules: dict[str, Any] = {
            f"{root}.{name}": module
            for root, tree in roots.items()
            for name, module in tree.named_modules()
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
        }
        self._by_name: dict[str, str] = {}
        for name in self.modules:
            root, _, path = name.partition(".")
            plain = path.removeprefix("text_model.")
            aliases = {path, path.removesuffix(".0")} if path.endswith("to_out.0") else {path}
            if root != "unet":
                aliases |= {plain, f"text_model.{plain}"}
                aliases |= {_old_text_name(alias) for alias in aliases}
            for alias in aliases:
                self._by_name[f"{root}.{alias}"] = name
                self._by_name[f"{root}.{alias.replace('.', '_')}"] = name

    def find(self, module: str, path: Path) -> str:
        """Return the name of a file's module. Raises CheckpointError where there is none."""
        bare = _bare(module)
        found = self._by_name.get(bare) or self._by_name.get(f"unet.{bare}")
        if found is None:
            raise CheckpointError(f"{path.name}: the checkpoint has no layer {module}")
        return found


def _bare(module: str) -> str:
    """Return a file's name for a module, with its root as we call it."""
    bare = module.removeprefix("base_model.model.").replace(".processor", "")
    for prefix, root in _KOHYA_ROOTS.items():
        if bare.startswith(prefix):
            return f"{root}.{bare.removeprefix(prefix)}"
    return bare


def plain_name(module: str) -> str:
    """Return a name for a module that its namings have in common."""
    plain = _bare(module).removeprefix("unet.").replace(".", "_").replace("text_model_", "")
    return plain.removesuffix("_0") if plain.endswith("to_out_0") else plain


def _old_text_name(path: str) -> str:
    """Return how diffusers' attention processors called a layer of a text encoder."""
    return re.sub(r"self_attn\.(q|k|v|out)_proj$", r"self_attn.to_\1", path)


def _parse(key: str, path: Path) -> tuple[str, str]:
    """Split a key into its module and `down`, `up` or `alpha`."""
    if key.endswith(".alpha"):
        return key.removesuffix(".alpha"), "alpha"
    match = _FACTOR.match(key)
    if match is None:
        what = next((name for part, name in _REFUSED.items() if part in key), "this key")
        raise CheckpointError(f"{path.name}: {what} is not supported: {key}")
    kind = {"A": "down", "B": "up"}.get(match["ab"] or "") or match["kohya"] or match["old"]
    return match["module"], kind


def _low_rank(  # noqa: PLR0917 - each is a thing of its own
    module: str,
    parts: Mapping[str, torch.Tensor],
    settings: Mapping[str, Any],
    layer: Any,
    weight: float,
    path: Path,
) -> LowRank:
    if not {"down", "up"} <= parts.keys():
        raise CheckpointError(f"{path.name}: {module} has not both of its factors")
    down, up = parts["down"], parts["up"].flatten(1)  # a 1 x 1 convolution is a matrix
    shape = tuple(layer.weight.shape)
    if down.ndim == 2 and len(shape) == 4:  # noqa: PLR2004 - a matrix for a 1 x 1 convolution
        down = down[..., None, None]
    elif down.ndim == 4 and len(shape) == 2:  # noqa: PLR2004 - and the other way round
        down = down.flatten(1)
    if (len(up), *down.shape[1:]) != shape or up.shape[1] != len(down):
        raise CheckpointError(f"{path.name}: {module} is of another shape than the checkpoint's")
    scale = weight * _scale(module, len(down), parts.get("alpha"), settings)
    return LowRank(down.float(), scale * up.float())


def _scale(
    module: str, rank: int, alpha: torch.Tensor | None, settings: Mapping[str, Any]
) -> float:
    """Return alpha / r, or alpha / sqrt(r) for peft's rank-stabilised LoRA; 1 without an alpha."""
    if alpha is not None:
        return float(alpha) / rank
    if "lora_alpha" not in settings:
        return 1.0
    path = module.partition(".")[2]
    pattern = settings.get("alpha_pattern") or {}
    value = float(pattern.get(get_pattern_key(pattern, path), settings["lora_alpha"]))
    return value / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _settings(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return peft's settings of a file: in its metadata, or in `adapter_config.json` beside it.

    Raises CheckpointError for one that is not supported.
    """
    beside = path.with_name("adapter_config.json")
    try:
        if "lora_adapter_metadata" in metadata:
            every = json.loads(metadata["lora_adapter_metadata"])
            settings = {name.removeprefix("unet."): value for name, value in every.items()}
        else:
            settings = json.loads(beside.read_text("utf-8")) if beside.exists() else {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name}: its settings cannot be read") from error
    for name in _REFUSED_SETTINGS:
        if settings.get(name):
            raise CheckpointError(f"{path.name}: {name} is not supported")
    if settings.get("bias", "none") not in {"none", False}:
        raise CheckpointError(f"{path.name}: a bias is not supported")
    if settings.get("peft_type", "LORA") != "LORA":
        raise CheckpointError(f"{path.name}: {settings['peft_type']} is not supported")
    return settings


def _from_sgm(tensors: dict[str, torch.Tensor], unet: Any, path: Path) -> dict[str, torch.Tensor]:
    """Rename kohya's blocks of SDXL, which are those of the original code, to diffusers'."""
    try:
        renamed: dict[str, torch.Tensor] = _maybe_map_sgm_blocks_to_diffusers(tensors, unet.config)
    except (ValueError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path.name}: its blocks are not known: {error}") from error
    return renamed
