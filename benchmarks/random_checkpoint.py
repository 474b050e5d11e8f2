"""A checkpoint of full size with seeded random weights: speed does not depend on their values.

    python -m benchmarks.random_checkpoint sd15 FOLDER      0.9 + 0.1 + 0.1 billion parameters, fp16
    python -m benchmarks.random_checkpoint tiny FOLDER      the same layout, small, for a rehearsal

Made on the machine that measures, so that nothing has to be downloaded. The UNet is that of a
latent consistency model: Stable Diffusion 1.5's with a guidance embedding. Beside the checkpoint's
own autoencoder, in FOLDER/tiny, stands an `AutoencoderTiny` of TAESD's widths.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    LatentConsistencyModelImg2ImgPipeline,
    LCMScheduler,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_GUIDANCE_WIDTH = 256


@dataclass(frozen=True)
class Size:
    """Widths of a checkpoint's parts."""

    unet: tuple[int, ...]
    heads: int
    vae: tuple[int, ...]
    groups: int
    text: int
    text_layers: int
    tiny: int  # of all layers of the AutoencoderTiny


SIZES = {
    "sd15": Size((320, 640, 1280, 1280), 8, (128, 256, 512, 512), 32, 768, 12, 64),
    "tiny": Size((32, 32, 64, 64), 4, (16, 16, 32, 32), 8, 32, 2, 8),
}


def write(size: Size, folder: Path) -> None:
    """Write the checkpoint in diffusers' layout, and the small autoencoder, in fp16."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    parts = {
        "unet": _unet(size),
        "vae": _autoencoder(size),
        "text_encoder": _text_encoder(size, tokenizer),
    }
    LatentConsistencyModelImg2ImgPipeline(
        **{name: _calm(part).half() for name, part in parts.items()},
        tokenizer=tokenizer,
        scheduler=LCMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    widths = (size.tiny,) * 4
    tiny = AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)
    tiny.half().save_pretrained(folder / "tiny")


@torch.no_grad()
def _calm(module: nn.Module) -> nn.Module:
    """Halve the weights that add to a stream again and again, which else leaves fp16's range."""
    for name, weight in module.named_parameters():
        if weight.ndim > 1 and any(part in name for part in ("conv2", "to_out", "ff.net.2", "fc2")):
            weight.mul_(0.5)
    return module


def _unet(size: Size) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=size.unet,
        cross_attention_dim=size.text,
        attention_head_dim=size.heads,
        norm_num_groups=size.groups,
        time_cond_proj_dim=_GUIDANCE_WIDTH,
    )


def _autoencoder(size: Size) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=size.vae,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=size.groups,
        scaling_factor=0.18215,
    )


def _text_encoder(size: Size, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=size.text,
            intermediate_size=4 * size.text,
            num_hidden_layers=size.text_layers,
            num_attention_heads=max(1, size.text // 64),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
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
