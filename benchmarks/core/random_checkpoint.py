"""A checkpoint of full size with seeded random weights: speed does not depend on their values.

    python -m benchmarks.core.random_checkpoint sd15 FOLDER 0.9 + 0.1 + 0.1 billion weights, fp16
    python -m benchmarks.core.random_checkpoint sdxl FOLDER 2.6 + 0.1 + 0.8 billion weights, fp16
    python -m benchmarks.core.random_checkpoint tiny FOLDER  the layout of sd15, small, to rehearse
    python -m benchmarks.core.random_checkpoint tiny-sdxl FOLDER

Made on the machine that measures, so that nothing has to be downloaded. The UNet is that of a
latent consistency model: with a guidance embedding. Beside the checkpoint's own autoencoder, in
FOLDER/tiny, stands an `AutoencoderTiny` of TAESD's widths. SDXL's autoencoder runs in 16 bits here,
as its mended weights do.
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
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

_GUIDANCE_WIDTH = 256
_TIME_WIDTH = 256  # of each of the six numbers that SDXL reads of sizes
_HEAD_WIDTH = 64  # of a text encoder's attention


@dataclass(frozen=True)
class Text:
    """A text encoder."""

    width: int
    layers: int


@dataclass(frozen=True)
class Size:
    """Widths of a checkpoint's parts; two text encoders are SDXL's layout."""

    unet: tuple[int, ...]
    heads: int | tuple[int, ...]
    vae: tuple[int, ...]
    groups: int
    texts: tuple[Text, ...]
    tiny: int  # of all layers of the AutoencoderTiny
    depths: tuple[int, ...] = ()  # transformer blocks of each level, of SDXL

    @property
    def is_sdxl(self) -> bool:
        return len(self.texts) > 1


_VAE = (128, 256, 512, 512)
_TINY_VAE = (16, 16, 32, 32)

SIZES = {
    "sd15": Size((320, 640, 1280, 1280), 8, _VAE, 32, (Text(768, 12),), 64),
    "sdxl": Size(
        (320, 640, 1280), (5, 10, 20), _VAE, 32, (Text(768, 12), Text(1280, 32)), 64, (1, 2, 10)
    ),
    "tiny": Size((32, 32, 64, 64), 4, _TINY_VAE, 8, (Text(32, 2),), 8),
    "tiny-sdxl": Size(
        (32, 32, 64), (2, 2, 4), _TINY_VAE, 8, (Text(32, 2), Text(64, 2)), 8, (1, 1, 2)
    ),
}


def write(size: Size, folder: Path) -> None:
    """Write the checkpoint in diffusers' layout, and the small autoencoder, in fp16."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    parts = {"unet": unet_of(size), "vae": autoencoder_of(size), **_texts(size, tokenizer)}
    halves = {name: _calm(part).half() for name, part in parts.items()}
    _pipeline(size, halves, tokenizer).save_pretrained(folder)
    widths = (size.tiny,) * 4
    tiny = AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)
    tiny.half().save_pretrained(folder / "tiny")


def _pipeline(size: Size, parts: dict[str, Any], tokenizer: CLIPTokenizer) -> Any:
    if size.is_sdxl:
        return StableDiffusionXLImg2ImgPipeline(
            **parts,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            scheduler=LCMScheduler(),
            add_watermarker=False,
        )
    return LatentConsistencyModelImg2ImgPipeline(
        **parts,
        tokenizer=tokenizer,
        scheduler=LCMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def _calm(module: nn.Module) -> nn.Module:
    """Halve the weights that add to a stream again and again, which else leaves fp16's range."""
    for name, weight in module.named_parameters():
        if weight.ndim > 1 and any(part in name for part in ("conv2", "to_out", "ff.net.2", "fc2")):
            weight.mul_(0.5)
    return module


def unet_of(size: Size) -> UNet2DConditionModel:
    """Return a UNet with a guidance embedding."""
    return UNet2DConditionModel(
        sample_size=128 if size.is_sdxl else 64,
        block_out_channels=size.unet,
        cross_attention_dim=sum(text.width for text in size.texts),
        attention_head_dim=size.heads,
        norm_num_groups=size.groups,
        time_cond_proj_dim=_GUIDANCE_WIDTH,
        **(_sdxl_options(size) if size.is_sdxl else {}),
    )


def _sdxl_options(size: Size) -> dict[str, Any]:
    return {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": size.depths,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _TIME_WIDTH,
        "projection_class_embeddings_input_dim": 6 * _TIME_WIDTH + size.texts[1].width,
    }


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


def _texts(size: Size, tokenizer: CLIPTokenizer) -> dict[str, nn.Module]:
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    pairs = zip(kinds.items(), size.texts, strict=False)
    return {name: kind(_text_config(text, tokenizer)) for (name, kind), text in pairs}


def _text_config(text: Text, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=text.width,
        projection_dim=text.width,
        intermediate_size=4 * text.width,
        num_hidden_layers=text.layers,
        num_attention_heads=max(1, text.width // _HEAD_WIDTH),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _tokenizer() -> CLIPTokenizer:
    """Return a tokenizer of single bytes: what it reads does not matter here."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocab = {name: index for index, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write(SIZES[arguments.size], arguments.folder)


if __name__ == "__main__":
    main()
