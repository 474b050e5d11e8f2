"""An autoencoder as two verbs: pixels to scaled latents and back."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn

from models.runtime.forward import Forward
from models.runtime.transfer import to_device


class Autoencoder:
    """diffusers' `AutoencoderKL` or `AutoencoderTiny`, with the scaling of its own config.

    It may run in another dtype than the UNet: that of SDXL overflows in fp16.
    """

    def __init__(self, vae: Any, name: str = "full") -> None:
        self.vae = vae
        self.has_posterior = isinstance(vae, AutoencoderKL)
        self.num_channels: int = vae.config.latent_channels
        self.scale_factor = 2 ** (_num_levels(vae) - 1)
        self.encoding = Forward(f"encode-{name}", _Encoder(vae))
        self.decoding = Forward(f"decode-{name}", _Decoder(vae))

    def encode(
        self,
        pixels: torch.Tensor,
        posterior_noise: torch.Tensor | None,
        *,
        in_fp32: bool = False,
    ) -> torch.Tensor:
        """Encode uint8 pixels [B, H, W, 3] into scaled latents [B, C, h, w].

        `posterior_noise` [B, C, h, w] picks the sample of the posterior; None where the
        autoencoder has no posterior. `in_fp32` is for pictures that overflow 16 bits.
        """
        given = (pixels,) if posterior_noise is None else (pixels, posterior_noise)
        inputs = tuple(to_device(tensor, self.vae.device) for tensor in given)
        return self.encoding.in_fp32(*inputs) if in_fp32 else self.encoding(*inputs)

    def decode(self, latents: torch.Tensor, *, in_fp32: bool = False) -> torch.Tensor:
        """Decode scaled latents [B, C, h, w] into pixels [B, H, W, 3], fp32, about 0 to 255.

        `in_fp32` is for latents that overflow 16 bits on their way.
        """
        return self.decoding.in_fp32(latents) if in_fp32 else self.decoding(latents)


class _Scaled(nn.Module):
    """An autoencoder with the statistics of its latents, [1, C, 1, 1] each, or 0 and 1."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if mean is None or std is None:
            mean, std = [0.0], [1.0]
        for name, values in (("mean", mean), ("std", std)):
            tensor = torch.tensor(values, device=vae.device, dtype=vae.dtype).view(1, -1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)


class _Encoder(_Scaled):
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Pixels, and where there is a posterior its noise, to scaled latents."""
        image = inputs[0].permute(0, 3, 1, 2).float() / 255.0  # [B, 3, H, W]
        encoded = self.vae.encode((2.0 * image - 1.0).to(self.vae.dtype))
        if len(inputs) == 1:
            latents = encoded.latents
        else:
            posterior = encoded.latent_dist
            latents = posterior.mean + posterior.std * inputs[1].to(posterior.mean)
        return (latents - self.mean) * self.vae.config.scaling_factor / self.std  # type: ignore[no-any-return]


class _Decoder(_Scaled):
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Scaled latents to pixels, neither clamped nor rounded."""
        scaled = inputs[0].to(self.vae.dtype) * self.std / self.vae.config.scaling_factor
        image = self.vae.decode((scaled + self.mean).to(self.vae.dtype), return_dict=False)[0]
        image = image.float() / 2 + 0.5  # [B, 3, H, W]
        return image.permute(0, 2, 3, 1) * 255.0  # type: ignore[no-any-return]


def _num_levels(vae: Any) -> int:
    channels = getattr(vae.config, "encoder_block_out_channels", None)
    return len(channels or vae.config.block_out_channels)
