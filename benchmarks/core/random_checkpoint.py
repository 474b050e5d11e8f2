"""A full-size checkpoint with seeded random weights: speed does not depend on their values.

    python -m benchmarks.core.random_checkpoint sd15 FOLDER   0.9 + 0.1 + 0.1 billion weights, fp16
    python -m benchmarks.core.random_checkpoint sdxl FOLDER   2.6 + 0.1 + 0.8 billion weights, fp16
    python -m benchmarks.core.random_checkpoint tiny FOLDER   the layout of sd15, for a quick check
    python -m benchmarks.core.random_checkpoint tiny-sdxl FOLDER
    python -m benchmarks.core.random_checkpoint smallest FOLDER   for load that is not about speed

It is made on the machine that measures, so nothing is downloaded. The UNet is that of a latent
consistency model, with a guidance embedding. FOLDER/tiny has an `AutoencoderTiny` with TAESD's
widths; `smallest` has no other one. SDXL's autoencoder runs in 16 bits, as the published fp16 fix.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    LatentConsistencyModelImg2ImgPipeline,
    LCMScheduler,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

_GUIDANCE_WIDTH = 256
_TIME_WIDTH = 256  # of each of SDXL's six size conditions
_HEAD_WIDTH = 64  # of a text encoder's attention


@dataclass(frozen=True)
class Size:
    """Widths of a checkpoint's parts. `texts` are (width, layers); SDXL has two text encoders.

    Without widths of a `vae` the `AutoencoderTiny` is the checkpoint's autoencoder.
    """

    unet: tuple[int, ...]
    heads: int | tuple[int, ...]
    vae: tuple[int, ...]
    groups: int
    texts: tuple[tuple[int, int], ...]
    tiny: int  # of all layers of the AutoencoderTiny
    depths: tuple[int, ...] = ()  # SDXL's transformer blocks of each level

    @property
    def is_sdxl(self) -> bool:
        return len(self.texts) > 1


_VAE = (128, 256, 512, 512)
_TINY_VAE = (16, 16, 32, 32)

SIZES = {
    "sd15": Size((320, 640, 1280, 1280), 8, _VAE, 32, ((768, 12),), 64),
    "sdxl": Size((320, 640, 1280), (5, 10, 20), _VAE, 32, ((768, 12), (1280, 32)), 64, (1, 2, 10)),
    "tiny": Size((32, 32, 64, 64), 4, _TINY_VAE, 8, ((32, 2),), 8),
    "tiny-sdxl": Size((32, 32, 64), (2, 2, 4), _TINY_VAE, 8, ((32, 2), (64, 2)), 8, (1, 1, 2)),
    "smallest": Size((32, 64), 8, (), 8, ((32, 2),), 8),
}


def write(size: Size, folder: Path) -> None:
    """Write the checkpoint in diffusers' layout, and the `AutoencoderTiny`, in fp16."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    widths = (size.tiny,) * 4
    blocks = {} if size.vae else {f"num_{half}_blocks": (1,) * 4 for half in ("encoder", "decoder")}
    tiny = AutoencoderTiny(
        encoder_block_out_channels=widths, decoder_block_out_channels=widths, **blocks
    )
    vae = autoencoder_of(size) if size.vae else tiny
    parts: dict[str, Any] = {"unet": unet_of(size), "vae": vae}
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    for (name, kind), (width, layers) in zip(kinds.items(), size.texts, strict=False):
        parts[name] = kind(_text_config(width, layers, tokenizer))
    for part in parts.values():
        _damp(part)
        part.half()
    common = {**parts, "tokenizer": tokenizer, "scheduler": LCMScheduler()}
    pipeline: Any = (
        StableDiffusionXLImg2ImgPipeline(**common, tokenizer_2=tokenizer, add_watermarker=False)
        if size.is_sdxl
        else LatentConsistencyModelImg2ImgPipeline(
            **common, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    )
    pipeline.save_pretrained(folder)
    if size.vae:
        tiny.half().save_pretrained(folder / "tiny")


@torch.no_grad()
def _damp(module: Any) -> None:
    """Halve the weights that add to a residual stream, which would leave the range of fp16."""
    for name, weight in module.named_parameters():
        if weight.ndim > 1 and any(part in name for part in ("conv2", "to_out", "ff.net.2", "fc2")):
            weight.mul_(0.5)


def unet_of(size: Size) -> UNet2DConditionModel:
    """Return a UNet with a guidance embedding."""
    options: dict[str, Any] = {}
    if not size.vae:
        options = {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
        }
    if size.is_sdxl:
        options = {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": size.depths,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": _TIME_WIDTH,
            "projection_class_embeddings_input_dim": 6 * _TIME_WIDTH + size.texts[1][0],
        }
    return UNet2DConditionModel(
        sample_size=128 if size.is_sdxl else 64,
        block_out_channels=size.unet,
        cross_attention_dim=sum(width for width, _ in size.texts),
        attention_head_dim=size.heads,
        norm_num_groups=size.groups,
        time_cond_proj_dim=_GUIDANCE_WIDTH,
        **options,
    )


def autoencoder_of(size: Size) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=size.vae,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=size.groups,
        scaling_factor=0.13025 if size.is_sdxl else 0.18215,
        force_upcast=False,
    )


def _text_config(width: int, layers: int, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        projection_dim=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // _HEAD_WIDTH),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _tokenizer() -> CLIPTokenizer:
    """Return a tokenizer of single bytes. The tokens do not matter here."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocab = {name: index for index, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write(SIZES[arguments.size], arguments.folder)
