"""Tiny checkpoints with seeded random weights, and diffusers' own pipeline to run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    EulerDiscreteScheduler,
    LatentConsistencyModelImg2ImgPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

VaeKind = Literal["kl", "tiny"]
TEXT_WIDTH = 32
BETAS: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
}  # fmt: skip


def write_checkpoint(
    folder: Path, vae: VaeKind = "tiny", prediction_type: str = "epsilon", seed: int = 0
) -> Path:
    """Write a checkpoint of a few hundred thousand random weights; return its folder."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    LatentConsistencyModelImg2ImgPipeline(
        vae=_lively(_autoencoder_kl() if vae == "kl" else _autoencoder_tiny()),
        text_encoder=_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=_unet(),
        scheduler=LCMScheduler(prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def write_plain_checkpoint(folder: Path) -> Path:
    """Write a checkpoint in the layout of SD 1.5: no LCM, and no guidance embedding."""
    torch.manual_seed(1)
    tokenizer = _tokenizer()
    StableDiffusionPipeline(
        vae=_lively(_autoencoder_kl()),
        text_encoder=_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=_unet(time_cond_proj_dim=None),
        scheduler=PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def write_sdxl_checkpoint(folder: Path) -> Path:
    """Write a checkpoint in the layout of SDXL, whose latents have a mean and a deviation."""
    torch.manual_seed(2)
    tokenizer = _tokenizer()
    vae = _lively(_autoencoder_kl())
    vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.9, 1.1, 1.2, 0.8])
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=_text_encoder(tokenizer),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=sdxl_unet(time_cond_proj_dim=None),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def sdxl_unet(time_cond_proj_dim: int | None) -> UNet2DConditionModel:
    return _unet(
        time_cond_proj_dim=time_cond_proj_dim,
        cross_attention_dim=2 * TEXT_WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + TEXT_WIDTH,
        use_linear_projection=True,
    )


def write_taesd(folder: Path) -> Path:
    """Write an `AutoencoderTiny` alone, as TAESD is published."""
    torch.manual_seed(3)
    _lively(_autoencoder_tiny()).save_pretrained(folder)
    return folder


def load_oracle(folder: Path) -> Any:
    """Load a checkpoint into diffusers' img2img pipeline, silent, on the CPU in fp32."""
    pipeline = LatentConsistencyModelImg2ImgPipeline.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def _lively(vae: Any) -> Any:
    """Scale and centre the last layers, so that picture and latents show in one another.

    As drawn, random layers damp their input to nearly nothing, and a test would compare biases.
    """
    is_kl = isinstance(vae, AutoencoderKL)
    encoder_out = vae.encoder.conv_out if is_kl else vae.encoder.layers[-1]
    decoder_out = vae.decoder.conv_out if is_kl else vae.decoder.layers[-1]
    latents = vae.encode(torch.rand(1, 3, 64, 64) * 2 - 1)
    latents = latents.latent_dist.mean if is_kl else latents.latents
    encoder_out.weight *= 1 / (_spread(latents) * vae.config.scaling_factor)

    def decode() -> torch.Tensor:
        decoded: torch.Tensor = vae.decode(
            torch.randn(1, 4, 8, 8) / vae.config.scaling_factor
        ).sample
        return decoded

    decoder_out.weight *= 0.4 / _spread(decode())
    decoder_out.bias -= decode().mean((0, 2, 3)) / (1 if is_kl else 2)  # Tiny doubles at its end
    return vae


def _spread(tensor: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation over positions: that over channels is mostly biases."""
    return tensor.std(dim=(2, 3)).mean()


@torch.no_grad()
def _unet(**options: Any) -> UNet2DConditionModel:
    settings: dict[str, Any] = {"cross_attention_dim": TEXT_WIDTH, "time_cond_proj_dim": 32}
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        attention_head_dim=8,
        norm_num_groups=8,
        **settings | options,
    )
    for name, weight in unet.named_parameters():
        if "attn2.to_out" in name or "cond_proj" in name:  # else prompt and guidance hardly show
            weight.mul_(10)
    return unet


def _autoencoder_kl() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
        scaling_factor=0.18215,
    )


def _autoencoder_tiny() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        scaling_factor=1.5,
    )


def _tokenizer() -> CLIPTokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocab = {
        token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])
    }
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(_text_config(tokenizer)).eval()


def _text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
