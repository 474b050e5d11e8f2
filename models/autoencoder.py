"""An autoencoder as two verbs: pixels to scaled latents and back."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import AutoencoderKL


class Autoencoder:
    """diffusers' `AutoencoderKL` or `AutoencoderTiny`, with the scaling of its own config.

    It may run in another dtype than the UNet: that of SDXL overflows in fp16.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.has_posterior = isinstance(vae, AutoencoderKL)
        self.num_channels: int = vae.config.latent_channels
        self.scale_factor = 2 ** (_num_levels(vae) - 1)
        self._mean, self._std = _statistics(vae)
        self._vae_fp32: Any = None

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
        vae = self._in(in_fp32=in_fp32)
        image = pixels.to(vae.device).permute(0, 3, 1, 2).float() / 255.0  # [B, 3, H, W]
        encoded = vae.encode((2.0 * image - 1.0).to(vae.dtype))
        if posterior_noise is None:
            latents = encoded.latents
        else:
            posterior = encoded.latent_dist
            latents = posterior.mean + posterior.std * posterior_noise.to(posterior.mean)
        return (latents - self._mean) * vae.config.scaling_factor / self._std  # type: ignore[no-any-return]

    def decode(self, latents: torch.Tensor, *, in_fp32: bool = False) -> torch.Tensor:
        """Decode scaled latents [B, C, h, w] into pixels [B, H, W, 3], fp32, about 0 to 255.

        `in_fp32` is for latents that overflow 16 bits on their way.
        """
        vae = self._in(in_fp32=in_fp32)
        scaled = latents.to(vae.dtype) * self._std / vae.config.scaling_factor
        image = vae.decode((scaled + self._mean).to(vae.dtype), return_dict=False)[0]
        image = image.float() / 2 + 0.5  # [B, 3, H, W]
        return image.permute(0, 2, 3, 1) * 255.0  # type: ignore[no-any-return]

    def _in(self, *, in_fp32: bool) -> Any:
        """Return the autoencoder, or its copy in fp32, made when it is first needed.

        A copy, since changing the dtype in place would move the weights away from what was
        compiled or captured with them.
        """
        if not in_fp32 or self.vae.dtype == torch.float32:
            return self.vae
        if self._vae_fp32 is None:
            self._vae_fp32 = copy.deepcopy(self.vae).float()
        return self._vae_fp32


def _num_levels(vae: Any) -> int:
    channels = getattr(vae.config, "encoder_block_out_channels", None)
    return len(channels or vae.config.block_out_channels)


def _statistics(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of the latents, [1, C, 1, 1] each, or 0 and 1."""
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is None or std is None:
        mean, std = [0.0], [1.0]
    like = {"device": vae.device, "dtype": vae.dtype}
    return torch.tensor(mean, **like).view(1, -1, 1, 1), torch.tensor(std, **like).view(1, -1, 1, 1)
