"""One checkpoint as verbs over batches: tensors in, tensors out, no state of any request.

The modules are diffusers' and transformers'; the loop around them is the engine's.
Key of shapes: B rows, L tokens, D text width, E guidance width, C h w latents, H W pixels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from models.lcm import LCMSchedule, alphas_cumprod

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class PromptEmbeds:
    """`embeds` is [B, L, D]; `dropped` counts the tokens of each prompt that did not fit."""

    embeds: torch.Tensor
    dropped: list[int]


@dataclass(frozen=True)
class RowNoise:
    """All randomness of one row, drawn at admission, fp32 on the CPU.

    `posterior` is [C, h, w], None for an autoencoder without a posterior; `start` [C, h, w];
    `steps` [N - 1, C, h, w], since the last step injects none.
    """

    posterior: torch.Tensor | None
    start: torch.Tensor
    steps: torch.Tensor


class Pipeline:
    """UNet, autoencoder and text encoder of one checkpoint, on one device, in one dtype."""

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        schedule: LCMSchedule,
    ) -> None:
        self.unet = unet
        self.vae = vae
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.schedule = schedule
        self.alphas_cumprod = alphas_cumprod(schedule)  # [T], on the CPU: the plan is made there
        self.device: torch.device = unet.device
        self.dtype: torch.dtype = unet.dtype
        self.guidance_dim: int = unet.config.time_cond_proj_dim
        self.num_latent_channels: int = unet.config.in_channels
        self.has_posterior = isinstance(vae, AutoencoderKL)
        self.vae_scale_factor = 2 ** (_num_vae_levels(vae) - 1)
        self._vae_fp32: Any = None

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return [C, h, w] of a picture of `height` x `width` pixels."""
        return (
            self.num_latent_channels,
            height // self.vae_scale_factor,
            width // self.vae_scale_factor,
        )

    def draw_noise(self, seed: int, height: int, width: int, num_steps: int) -> RowNoise:
        """Draw a row's randomness in the order of `LatentConsistencyModelImg2ImgPipeline`.

        torch's CPU generator uses the low 32 bits of the seed: seeds that are equal modulo
        2**32 give equal pictures. Each noise is a draw of its own, since one large draw need
        not give the numbers of several small ones.
        """
        generator = torch.Generator("cpu").manual_seed(seed)
        shape = self.latent_shape(height, width)

        def draw() -> torch.Tensor:
            return torch.randn((1, *shape), generator=generator, dtype=torch.float32)[0]

        posterior = draw() if self.has_posterior else None
        start = draw()
        steps = [draw() for _ in range(num_steps - 1)]
        return RowNoise(
            posterior, start, torch.stack(steps) if steps else start.new_empty(0, *shape)
        )

    def crop_noise(
        self, noise: RowNoise, origin: tuple[int, int], height: int, width: int
    ) -> RowNoise:
        """Cut the noise of `height` x `width` pixels at `origin` (y, x) out of a larger field."""
        _, h, w = self.latent_shape(height, width)
        y, x = (pixels // self.vae_scale_factor for pixels in origin)
        area = np.s_[..., y : y + h, x : x + w]
        posterior = None if noise.posterior is None else noise.posterior[area]
        return RowNoise(posterior, noise.start[area], noise.steps[area])

    @torch.inference_mode()
    def encode_prompt(self, prompts: Sequence[str]) -> PromptEmbeds:
        """Embed prompts, each cut to the text encoder's length (77 tokens for CLIP)."""
        length = self.tokenizer.model_max_length
        lengths = [len(ids) for ids in self.tokenizer(list(prompts), verbose=False).input_ids]
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        uses_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self.device) if uses_mask else None
        hidden = self.text_encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0]
        return PromptEmbeds(
            hidden.to(self.dtype), [max(0, count - length) for count in lengths]
        )  # [B, L, D]

    @torch.inference_mode()
    def encode_image(
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
        vae = self._vae(in_fp32=in_fp32)
        image = pixels.to(self.device).permute(0, 3, 1, 2).float() / 255.0  # [B, 3, H, W]
        encoded = vae.encode((2.0 * image - 1.0).to(vae.dtype))
        if posterior_noise is None:
            latents = encoded.latents
        else:
            posterior = encoded.latent_dist
            noise = posterior_noise.to(posterior.mean)
            latents = posterior.mean + posterior.std * noise
        scaled: torch.Tensor = latents * vae.config.scaling_factor
        return scaled.to(self.dtype)

    def latent_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Bring a mask [H, W] to the latents' size [1, h, w]: 1 where any pixel is not 0."""
        pooled = torch.nn.functional.max_pool2d(
            mask[None].ne(0).float(), kernel_size=self.vae_scale_factor
        )
        return pooled.to(self.device, self.dtype)

    @torch.inference_mode()
    def predict_noise(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        timestep_cond: torch.Tensor,
        prompt_embeds: torch.Tensor,
    ) -> torch.Tensor:
        """Run the UNet on rows that may differ in timestep [B], guidance and prompt.

        `latents` are [B, C, h, w], `timestep_cond` [B, E], `prompt_embeds` [B, L, D]. Returns
        [B, C, h, w]: noise, velocity or sample, as the schedule's prediction type says.
        """
        output = self.unet(
            latents,
            timesteps,
            timestep_cond=timestep_cond,
            encoder_hidden_states=prompt_embeds,
            return_dict=False,
        )
        return output[0]  # type: ignore[no-any-return]

    @torch.inference_mode()
    def decode_latents(self, latents: torch.Tensor, *, in_fp32: bool = False) -> torch.Tensor:
        """Decode scaled latents [B, C, h, w] into pixels [B, H, W, 3], fp32, about 0 to 255.

        Neither clamped nor rounded yet, so that the caller can see what is not finite. `in_fp32`
        is for latents that overflow 16 bits on their way, as SDXL's do.
        """
        vae = self._vae(in_fp32=in_fp32)
        latents = latents.to(vae.dtype) / vae.config.scaling_factor
        image = vae.decode(latents, return_dict=False)[0]
        image = image.float() / 2 + 0.5  # [B, 3, H, W]
        return image.permute(0, 2, 3, 1) * 255.0  # type: ignore[no-any-return]

    def _vae(self, *, in_fp32: bool) -> Any:
        """Return the autoencoder, or its copy in fp32, made when it is first needed.

        A copy, since changing the dtype in place would move the weights away from what was
        compiled or captured with them.
        """
        if not in_fp32 or self.dtype == torch.float32:
            return self.vae
        if self._vae_fp32 is None:
            self._vae_fp32 = copy.deepcopy(self.vae).float()
        return self._vae_fp32


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """Clamp and round float pixels to uint8; the shape stays."""
    return pixels.clamp(0.0, 255.0).round().to(torch.uint8)


def _num_vae_levels(vae: Any) -> int:
    channels = getattr(vae.config, "encoder_block_out_channels", None)
    return len(channels or vae.config.block_out_channels)
