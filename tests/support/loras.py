"""LoRA files with seeded random factors, in every naming that people publish."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import nn

Naming = Literal["peft", "diffusers", "diffusers-old", "kohya"]
Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]

ATTENTION = ("attn1.to_q", "attn1.to_v", "attn2.to_k", "attn2.to_out.0")
EVERYWHERE = (*ATTENTION, "proj_in", "ff.net.2", "conv1", "time_emb_proj", "conv_shortcut")


def random_factors(
    root: nn.Module, endings: Iterable[str], *, rank: int = 4, seed: int = 0
) -> Factors:
    """Draw `down` and `up` for each layer of `root` whose name ends so."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name, layer in root.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and name.endswith(tuple(endings)):
            out, *rest = layer.weight.shape
            down = torch.randn(rank, *rest, generator=generator) / rest[0] ** 0.5
            up = torch.randn(out, rank, *([1] * (len(rest) - 1)), generator=generator) / 4
            factors[name] = (down, up)
    assert factors
    return factors


def write_lora(
    path: Path,
    factors: Mapping[str, Factors],
    naming: Naming = "diffusers",
    alpha: float | None = None,
) -> Path:
    """Write the factors of each root (`unet`, `text_encoder`) as a file of that naming."""
    tensors: dict[str, torch.Tensor] = {}
    for root, layers in factors.items():
        for name, (down, up) in layers.items():
            prefix, (a, b) = _names(naming, root, name)
            tensors[f"{prefix}{a}.weight"], tensors[f"{prefix}{b}.weight"] = down, up
            if alpha is not None and naming in {"kohya", "diffusers-old"}:
                tensors[f"{prefix}.alpha"] = torch.tensor(alpha)
    metadata = {"format": "pt"}
    if alpha is not None and naming == "diffusers":
        metadata["lora_adapter_metadata"] = json.dumps({"unet.lora_alpha": alpha, "unet.r": 4})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata)
    if alpha is not None and naming == "peft":
        settings = {"peft_type": "LORA", "lora_alpha": alpha, "r": 4, "bias": "none"}
        path.with_name("adapter_config.json").write_text(json.dumps(settings))
    return path


def _names(naming: Naming, root: str, name: str) -> tuple[str, tuple[str, str]]:
    if naming == "peft":
        return f"base_model.model.{name}", (".lora_A", ".lora_B")
    if naming == "diffusers":
        return f"{root}.{name}", (".lora_A", ".lora_B")
    if naming == "diffusers-old":
        return f"{root}.{name}", (".lora.down", ".lora.up")
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}[root]
    text = "text_model_" if root != "unet" and not name.startswith("text_model") else ""
    return f"{prefix}_{text}{name.replace('.', '_')}", (".lora_down", ".lora_up")
