"""One checkpoint as verbs over batches: tensors in, tensors out, no state of any request.

The modules are diffusers' and transformers'; the loop around them is the engine's.
Key of shapes: B rows, G UNet rows of a row (2 where guidance doubles them), L tokens, D text
width, P pooled width, E guidance width, C h w latents, H W pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from models.lcm import LCMSchedule, alphas_cumprod, guidance_embedding
from models.runtime.forward import Forward
from models.runtime.transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from models.autoencoder import Autoencoder
    from models.lora.bank import AdapterBank
    from models.text_encoder import PromptEmbeds, PromptEncoder

GUIDANCE_BOUNDS = (0.5, 20.0)
"""The guidance that the API takes."""


_PROMPTS_KEPT = 128
"""Of SDXL each takes 0.6 MB, of SD 1.5 a fifth of that."""


@dataclass(frozen=True)
class Conditioning:
    """What the UNet reads beside latents and timestep: of one row, or stacked to B rows.

    `prompt_embeds` [G, L, D]; a guidance embedding `timestep_cond` [E], or a `guidance_scale` []
    between two UNet rows (G is 2); `pooled_embeds` [G, P] and `time_ids` [6] of SDXL.
    """

    prompt_embeds: torch.Tensor
    timestep_cond: torch.Tensor | None = None
    guidance_scale: torch.Tensor | None = None
    pooled_embeds: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Conditioning:
        """Apply a change to each tensor that is there."""
        parts = vars(self).items()
        changed = {name: None if part is None else change(part) for name, part in parts}
        return Conditioning(**changed)  # type: ignore[arg-type]


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
    """UNet, autoencoders and text encoders of one checkpoint, on one device.

    A UNet without guidance embedding is guided by doubled rows, within `guidance_range`: beyond
    it a UNet with an LCM-LoRA falls apart (arXiv 2311.05556), so that the API's 0.5 to 20 is
    mapped onto it.
    """

    def __init__(
        self,
        *,
        unet: Any,
        autoencoders: Mapping[str, Autoencoder],
        prompts: PromptEncoder,
        schedule: LCMSchedule,
        adapters: AdapterBank,
        guidance_range: tuple[float, float] = (1.0, 2.0),
    ) -> None:
        self.unet = unet
        self.autoencoders = autoencoders
        self.prompts = prompts
        self.adapters = adapters
        self.schedule = schedule
        self.alphas_cumprod = alphas_cumprod(schedule)  # [T], on the CPU: the plan is made there
        self.device: torch.device = unet.device
        self.dtype: torch.dtype = unet.dtype
        self.guidance_dim: int | None = unet.config.time_cond_proj_dim
        self.is_sdxl = unet.config.addition_embed_type == "text_time"
        self.vae_scale_factor = autoencoders["full"].scale_factor
        self.buckets: tuple[int, ...] = ()  # numbers of rows that are made ready; none on a CPU
        self._guidance_range = guidance_range
        self._prompt_cache: OrderedDict[tuple[str, str | None, str], PromptEmbeds] = OrderedDict()
        self._parts = ["prompt_embeds", "timestep_cond" if self.guidance_dim else "guidance_scale"]
        if self.is_sdxl:
            self._parts += ["pooled_embeds", "time_ids"]
        self._denoising = Forward("denoise", _Denoiser(unet, self._parts))

    @property
    def rows_per_row(self) -> int:
        """UNet rows that a row of a job takes: 2 where guidance doubles them."""
        return 1 if self.guidance_dim else 2

    def autoencoder_kind(self, wished: str) -> Literal["full", "tiny"]:
        """Return the autoencoder that a wish gets: the checkpoint's own where there is no tiny."""
        return "tiny" if wished == "tiny" and "tiny" in self.autoencoders else "full"

    def used_guidance(self, guidance_scale: float) -> float | None:
        """Return the scale that 0.5 to 20 is mapped to; None where it is taken as it is."""
        if self.guidance_dim:
            return None
        low, high = self._guidance_range
        share = (guidance_scale - GUIDANCE_BOUNDS[0]) / (GUIDANCE_BOUNDS[1] - GUIDANCE_BOUNDS[0])
        return low + share * (high - low)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return [C, h, w] of a picture of `height` x `width` pixels."""
        return (
            self.unet.config.in_channels,
            height // self.vae_scale_factor,
            width // self.vae_scale_factor,
        )

    def draw_noise(
        self, seed: int, height: int, width: int, num_steps: int, autoencoder: str = "full"
    ) -> RowNoise:
        """Draw a row's randomness in the order of `LatentConsistencyModelImg2ImgPipeline`.

        torch's CPU generator uses the low 32 bits of the seed: seeds that are equal modulo
        2**32 give equal pictures. Each noise is a draw of its own, since one large draw need
        not give the numbers of several small ones.
        """
        generator = torch.Generator("cpu").manual_seed(seed)
        shape = self.latent_shape(height, width)

        def draw() -> torch.Tensor:
            return torch.randn((1, *shape), generator=generator, dtype=torch.float32)[0]

        posterior = draw() if self.autoencoders[autoencoder].has_posterior else None
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
    def encode_prompt(
        self, prompt: str, negative_prompt: str | None = None, adapter: str = ""
    ) -> PromptEmbeds:
        """Embed a prompt, and what to lead away from where the rows are doubled for guidance.

        The last prompts are kept: who draws asks for the same one at every stroke.
        """
        key = (prompt, negative_prompt, adapter)
        if key not in self._prompt_cache:
            self.adapters.select([adapter])
            self._prompt_cache[key] = (
                self.prompts.encode(prompt)
                if self.guidance_dim
                else self.prompts.encode_guided(prompt, negative_prompt)
            )
        self._prompt_cache.move_to_end(key)
        while len(self._prompt_cache) > _PROMPTS_KEPT:
            self._prompt_cache.popitem(last=False)
        return self._prompt_cache[key]

    def condition(
        self, prompt: PromptEmbeds, guidance_scale: float, height: int, width: int
    ) -> Conditioning:
        """Put together what the UNet reads of one row of `height` x `width` pixels."""
        scale = self.used_guidance(guidance_scale)
        cond = (
            guidance_embedding([guidance_scale], self.guidance_dim)[0]
            if self.guidance_dim
            else None
        )
        size = torch.tensor([height, width, 0, 0, height, width]) if self.is_sdxl else None
        return Conditioning(
            prompt_embeds=prompt.embeds,
            timestep_cond=cond,
            guidance_scale=None if scale is None else torch.tensor(scale),
            pooled_embeds=prompt.pooled,
            time_ids=size,
        ).map(lambda part: to_device(part, self.device, self.dtype if part.ndim else None))

    @torch.inference_mode()
    def encode_image(
        self,
        pixels: torch.Tensor,
        posterior_noise: torch.Tensor | None,
        autoencoder: str = "full",
        *,
        in_fp32: bool = False,
    ) -> torch.Tensor:
        """Encode uint8 pixels [B, H, W, 3] into latents [B, C, h, w]; see `Autoencoder.encode`."""
        chosen = self.autoencoders[autoencoder]
        return chosen.encode(pixels, posterior_noise, in_fp32=in_fp32).to(self.dtype)

    def latent_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Bring a mask [H, W] to the latents' size [1, h, w]: 1 where any pixel is not 0."""
        pooled = torch.nn.functional.max_pool2d(
            mask[None].ne(0).float(), kernel_size=self.vae_scale_factor
        )
        return to_device(pooled, self.device, self.dtype)

    @torch.inference_mode()
    def predict_noise(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
        adapters: Sequence[str] = (),
        *,
        in_fp32: bool = False,
    ) -> torch.Tensor:
        """Run the UNet on rows that may differ in timestep [B], guidance, prompt and adapter.

        `latents` are [B, C, h, w], and so is what is returned: noise, velocity or sample, as the
        schedule's prediction type says. Doubled rows stand side by side, and are made one again.
        `in_fp32` is for rows that overflow 16 bits.
        """
        doubling = conditioning.prompt_embeds.shape[1]
        self.adapters.select([name for name in adapters for _ in range(doubling)])
        parts = (getattr(conditioning, name) for name in self._parts)
        run = self._denoising.in_fp32 if in_fp32 else self._denoising
        return run(latents, timesteps, *parts)

    @torch.inference_mode()
    def decode_latents(
        self, latents: torch.Tensor, autoencoder: str = "full", *, in_fp32: bool = False
    ) -> torch.Tensor:
        """Decode scaled latents [B, C, h, w] into pixels [B, H, W, 3], fp32, about 0 to 255.

        Neither clamped nor rounded yet, so that the caller can see what is not finite.
        """
        return self.autoencoders[autoencoder].decode(latents, in_fp32=in_fp32)

    def forwards(
        self,
        height: int,
        width: int,
        num_rows: int,
        *,
        encodes: bool = True,
        decodes: bool = True,
    ) -> Iterator[tuple[Forward, tuple[torch.Tensor, ...]]]:
        """Yield what runs for rows of `height` x `width` pixels, each with an example's inputs.

        `encodes` and `decodes` say whether so many rows are encoded and decoded at once, too.
        """
        latents = self._zeros(num_rows, *self.latent_shape(height, width))
        timesteps = torch.full((num_rows,), 999, device=self.device)
        one = self.condition(self.encode_prompt(""), 1.0, height, width)
        rows = one.map(lambda part: part.expand(num_rows, *part.shape).contiguous())
        parts = (getattr(rows, name) for name in self._parts)
        yield self._denoising, (latents, timesteps, *parts)
        if num_rows == 1:  # a prompt is embedded by itself
            yield from self.prompts.forwards()
        for autoencoder in self.autoencoders.values():
            if encodes:
                pixels = self._zeros(num_rows, height, width, 3).to(torch.uint8)
                noise = (latents.float(),) if autoencoder.has_posterior else ()
                yield autoencoder.encoding, (pixels, *noise)
            if decodes:
                yield autoencoder.decoding, (latents,)

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)


class _Denoiser(nn.Module):
    """A UNet over rows: doubled for guidance where it embeds none, and made one again."""

    def __init__(self, unet: Any, parts: Sequence[str]) -> None:
        super().__init__()
        self.unet = unet
        self._parts = parts

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, h, w], timesteps [B] and the parts of the conditioning to an output."""
        latents, timesteps, *parts = inputs
        conditioning = Conditioning(**dict(zip(self._parts, parts, strict=True)))
        num_rows, doubling = latents.shape[0], conditioning.prompt_embeds.shape[1]
        output = self.unet(
            latents.repeat_interleave(doubling, 0),
            timesteps.repeat_interleave(doubling, 0),
            timestep_cond=conditioning.timestep_cond,
            encoder_hidden_states=conditioning.prompt_embeds.flatten(0, 1),
            added_cond_kwargs=_added(conditioning, doubling),
            return_dict=False,
        )[0]  # [B * G, C, h, w]
        if conditioning.guidance_scale is None:
            return output  # type: ignore[no-any-return]
        unguided, guided = output.view(num_rows, doubling, *output.shape[1:]).unbind(1)
        scale = conditioning.guidance_scale[:, None, None, None]  # [B, 1, 1, 1], fp32
        return unguided + scale * (guided - unguided)  # type: ignore[no-any-return]


def _added(conditioning: Conditioning, doubling: int) -> dict[str, torch.Tensor] | None:
    """Return the further conditioning of SDXL, for B * G rows."""
    if conditioning.pooled_embeds is None or conditioning.time_ids is None:
        return None
    return {
        "text_embeds": conditioning.pooled_embeds.flatten(0, 1),
        "time_ids": conditioning.time_ids.repeat_interleave(doubling, 0),
    }
