"""The least that a forward costs: floating-point operations, and weights to read.

Counted on meta tensors by torch's FlopCounterMode (a multiply-add is two operations), so nothing is
computed and no GPU is needed.
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

from benchmarks.core.roofline import Roofline
from benchmarks.core.setup import Setup

_NUM_TOKENS = 77


@dataclass(frozen=True)
class Cost:
    """Operations of a forward of one row, and the bytes of the weights that it reads."""

    flops: float
    weight_bytes: float

    def floor_ms(self, roofline: Roofline, rows: int = 1) -> float:
        """Return the least time of `rows` in one call: arithmetic or reading, the slower one."""
        return 1000 * max(
            rows * self.flops / (1e12 * roofline.tflops),
            self.weight_bytes / (1e9 * roofline.gb_per_s),
        )


def stage_costs(setup: Setup, height: int, width: int) -> dict[str, Cost]:
    """Return the costs of a row of `height` x `width` pixels: unet, text, encode, decode.

    With an `AutoencoderTiny`, also tiny_encode and tiny_decode.
    """
    folder, itemsize = setup.checkpoint, setup.dtype.itemsize
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    with torch.device("meta"):
        texts = nn.ModuleList(
            kind(CLIPTextConfig.from_pretrained(folder / name)).eval()
            for name, kind in kinds.items()
            if (folder / name).is_dir()
        )
    name = json.loads((folder / "vae" / "config.json").read_text())["_class_name"]
    vae_kind = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}[name]
    vae, unet = _on_meta(vae_kind, folder / "vae"), _on_meta(UNet2DConditionModel, folder / "unet")
    costs = vae_costs(vae, itemsize, height, width)
    scale = 2 ** (len(_channels(vae)) - 1)
    costs["unet"] = unet_cost(unet, itemsize, height // scale, width // scale)
    costs["text"] = _cost(texts, itemsize, lambda: [one(_ints(1, _NUM_TOKENS)) for one in texts])
    if setup.tiny is not None:
        tiny = vae_costs(_on_meta(AutoencoderTiny, setup.tiny), itemsize, height, width)
        costs |= {f"tiny_{stage}": cost for stage, cost in tiny.items()}
    return costs


def request_floor_ms(
    costs: dict[str, Cost], roofline: Roofline, unet_calls: int, *, is_tiny: bool = False
) -> float:
    """Return the least time of one picture. Its prompt's embedding may be cached."""
    prefix = "tiny_" if is_tiny and "tiny_encode" in costs else ""
    encode, decode = costs[f"{prefix}encode"], costs[f"{prefix}decode"]
    vae_ms = encode.floor_ms(roofline) + decode.floor_ms(roofline)
    return vae_ms + unet_calls * costs["unet"].floor_ms(roofline)


def vae_costs(vae: Any, itemsize: int, height: int, width: int) -> dict[str, Cost]:
    """Return encode and decode of a meta autoencoder."""
    scale = 2 ** (len(_channels(vae)) - 1)
    latents = _floats(1, vae.config.latent_channels, height // scale, width // scale)
    return {
        "encode": _cost(vae.encoder, itemsize, lambda: vae.encode(_floats(1, 3, height, width))),
        "decode": _cost(vae.decoder, itemsize, lambda: vae.decode(latents)),
    }


def unet_cost(unet: Any, itemsize: int, h: int, w: int) -> Cost:
    """Return the cost of a meta UNet on `h` x `w` latents.

    Classifier-free guidance doubles the rows of a UNet without a guidance embedding.
    """
    config = unet.config
    guidance = config.time_cond_proj_dim
    rows = 1 if guidance else 2
    added = None
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": _floats(rows, pooled), "time_ids": _floats(rows, 6)}
    return _cost(
        unet,
        itemsize,
        lambda: unet(
            _floats(rows, config.in_channels, h, w),
            _ints(rows),
            encoder_hidden_states=_floats(rows, _NUM_TOKENS, config.cross_attention_dim),
            timestep_cond=_floats(rows, guidance) if guidance else None,
            added_cond_kwargs=added,
        ),
    )


def _cost(module: nn.Module, itemsize: int, call: Callable[[], object]) -> Cost:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    weights = sum(weight.numel() for weight in module.parameters())
    return Cost(float(counter.get_total_flops()), float(itemsize * weights))


def _on_meta(kind: Any, folder: Path) -> Any:
    with torch.device("meta"):
        return kind.from_config(kind.load_config(folder)).eval()


def _channels(vae: Any) -> list[int]:
    found: list[int] = vae.config.get("encoder_block_out_channels") or vae.config.block_out_channels
    return found


def _floats(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def _ints(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, device="meta", dtype=torch.long)
