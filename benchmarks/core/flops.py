"""What a forward costs at least: floating-point operations, and weights that have to be read.

Counted on meta tensors by torch's own FlopCounterMode (a multiply-add is two), so that nothing is
computed and no card is needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.core.roofline import Ceiling
from benchmarks.core.setup import Place

_NUM_TOKENS = 77


@dataclass(frozen=True)
class Work:
    """A forward's operations, and the bytes of the weights that it reads."""

    flops: float
    weight_bytes: float

    def floor_ms(self, ceiling: Ceiling, rows: int = 1) -> float:
        """Return what `rows` in one call take at least: arithmetic, or the reading of weights."""
        return 1000 * max(
            rows * self.flops / (1e12 * ceiling.tflops),
            self.weight_bytes / (1e9 * ceiling.gb_per_s),
        )


def count_work(place: Place, height: int, width: int) -> dict[str, Work]:
    """Return the work of one row of `height` x `width` pixels, by the name of the part."""
    unet = _meta(UNet2DConditionModel, place.checkpoint / "unet")
    vae = _meta(_vae_class(place.checkpoint / "vae"), place.checkpoint / "vae")
    texts = _meta_texts(place.checkpoint)
    scale = 2 ** (len(_channels(vae)) - 1)
    h, w = height // scale, width // scale
    itemsize = place.dtype.itemsize
    parts = {
        "unet": _work(unet, itemsize, lambda: _call_unet(unet, h, w)),
        "text": _work(texts, itemsize, lambda: [one(_whole(1, _NUM_TOKENS)) for one in texts]),
        **_codec("", vae, itemsize, (height, width), (h, w)),
    }
    if place.tiny is not None:
        tiny = _meta(AutoencoderTiny, place.tiny)
        parts |= _codec("tiny_", tiny, itemsize, (height, width), (h, w))
    return parts


def request_floor_ms(
    parts: dict[str, Work], ceiling: Ceiling, unet_calls: int, *, is_tiny: bool = False
) -> float:
    """Return what one picture takes at least; its prompt's embedding may be at hand."""
    prefix = "tiny_" if is_tiny and "tiny_encode" in parts else ""
    encode, decode = parts[f"{prefix}encode"], parts[f"{prefix}decode"]
    codec_ms = encode.floor_ms(ceiling) + decode.floor_ms(ceiling)
    return codec_ms + unet_calls * parts["unet"].floor_ms(ceiling)


def _codec(
    prefix: str, vae: Any, itemsize: int, pixels: tuple[int, int], latents: tuple[int, int]
) -> dict[str, Work]:
    channels = vae.config.latent_channels
    encode = _work(vae.encoder, itemsize, lambda: vae.encode(_floats(1, 3, *pixels)))
    decode = _work(vae.decoder, itemsize, lambda: vae.decode(_floats(1, channels, *latents)))
    return {f"{prefix}encode": encode, f"{prefix}decode": decode}


def _work(module: nn.Module, itemsize: int, call: Callable[[], object]) -> Work:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    weights = sum(weight.numel() for weight in module.parameters())
    return Work(float(counter.get_total_flops()), float(itemsize * weights))


def _call_unet(unet: Any, h: int, w: int) -> object:
    config = unet.config
    guidance = config.time_cond_proj_dim
    rows = 1 if guidance else 2  # guidance doubles the rows of a UNet that embeds none
    added = None
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": _floats(rows, pooled), "time_ids": _floats(rows, 6)}
    return unet(
        _floats(rows, config.in_channels, h, w),
        _whole(rows),
        encoder_hidden_states=_floats(rows, _NUM_TOKENS, config.cross_attention_dim),
        timestep_cond=_floats(rows, guidance) if guidance else None,
        added_cond_kwargs=added,
    )


def _meta(kind: Any, folder: Path) -> Any:
    with torch.device("meta"):
        return kind.from_config(kind.load_config(folder)).eval()


def _meta_texts(checkpoint: Path) -> nn.ModuleList:
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    found = {checkpoint / name: kind for name, kind in kinds.items()}
    with torch.device("meta"):
        return nn.ModuleList(
            kind(CLIPTextConfig.from_pretrained(folder)).eval()
            for folder, kind in found.items()
            if folder.is_dir()
        )


def _vae_class(folder: Path) -> Any:
    name = json.loads((folder / "config.json").read_text())["_class_name"]
    return {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}[name]


def _channels(vae: Any) -> list[int]:
    found: list[int] = vae.config.get("encoder_block_out_channels") or vae.config.block_out_channels
    return found


def _floats(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def _whole(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, device="meta", dtype=torch.long)
