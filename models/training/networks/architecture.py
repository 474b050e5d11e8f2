"""The networks and the scheduler of models/pocket."""

from __future__ import annotations

import torch
from diffusers import LCMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from models.training.networks.tokenizer import MAX_TOKENS, build_tokenizer

TEXT_WIDTH = 128
TEXT_LAYERS = 4
CHANNELS = (48, 96, 160, 144)
NORM_GROUPS = 16
HEADS = 4
TRUNK_LEVEL = 2  # the first level of the trunk
TRUNK_ZOOM = 2**TRUNK_LEVEL  # latents of 64 x 64 are 16 x 16 there
GUIDANCE_WIDTH = 256  # of the embedding of w = guidance - 1


def build_text_encoder() -> CLIPTextModel:
    """Return a small CLIP text encoder with the tokenizer's special ids in its config."""
    tokenizer = build_tokenizer()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet(*, guided: bool, sample_size: int = 64) -> UNet2DConditionModel:
    """Return the UNet: four levels, from latents of 64 x 64 to a bottleneck of 8 x 8.

    Only the two small levels have attention (256 tokens at 512 x 512). `guided` adds the projection
    of the guidance embedding, which the student has and the teacher does not. The pooled prompt is
    added to the time embedding and reaches every level, also those without attention.
    """
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=4,
        out_channels=4,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2 + ("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",) * 2,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=NORM_GROUPS,
        attention_head_dim=HEADS,  # diffusers reads this as the number of heads
        time_cond_proj_dim=GUIDANCE_WIDTH if guided else None,
        addition_embed_type="text",
        addition_embed_type_num_heads=HEADS,
    )


def build_scheduler() -> LCMScheduler:
    """Return the scheduler: Stable Diffusion's betas, v-prediction, 50 origin steps."""
    return LCMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        original_inference_steps=50,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_scaling=10.0,
    )


class Trunk(nn.Module):
    """A first and a last convolution with which a UNet's inner levels form a network.

    At 512 x 512 the levels that read the prompt see maps of 16 x 16 and 8 x 8. An image of
    128 x 128 has latents of that size: it trains them on maps as they will see them, at a third of
    the cost, in the teacher and in the student. The outer levels, for edges and grain, are skipped.
    A mixture has both kinds of step, which keeps the inner and outer levels compatible.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(4, CHANNELS[TRUNK_LEVEL - 1], 3, padding=1)
        self.exit = nn.Conv2d(CHANNELS[TRUNK_LEVEL], 4, 3, padding=1)
        nn.init.zeros_(self.exit.weight)  # larger weights would undo what the UNet has learned

    def forward(
        self,
        unet: UNet2DConditionModel,
        x_t: Tensor,
        timesteps: Tensor,
        text: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Return v [B, 4, h, w] of small latents x_t [B, 4, h, w]; `guidance` is w embedded."""
        time = unet.time_embedding(unet.time_proj(timesteps).to(x_t.dtype), guidance)
        time = time + unet.add_embedding(text)
        hidden = self.entry(x_t)
        skips = [hidden]
        for down in unet.down_blocks[TRUNK_LEVEL:]:
            hidden, more = down(hidden_states=hidden, temb=time, encoder_hidden_states=text)
            skips += more
        hidden = unet.mid_block(hidden, time, encoder_hidden_states=text)
        *inner, last = unet.up_blocks[: len(CHANNELS) - TRUNK_LEVEL]
        for up in inner:
            split = len(skips) - len(up.resnets)
            skips, inputs = skips[:split], tuple(skips[split:])
            hidden = up(hidden, inputs, time, encoder_hidden_states=text)
        for resnet, attention in zip(last.resnets, last.attentions, strict=True):
            hidden = resnet(torch.cat((hidden, skips.pop()), 1), time)
            hidden = attention(hidden, encoder_hidden_states=text, return_dict=False)[0]
        v: Tensor = self.exit(hidden)  # before the upsampling, a sixth of all work
        return v


def predict_velocity(
    unet: UNet2DConditionModel,
    x_t: Tensor,
    timesteps: Tensor,
    text: Tensor,
    guidance: Tensor | None = None,
    *,
    trunk: Trunk | None = None,
) -> Tensor:
    """Return v [B, 4, h, w] of the whole UNet, or of its inner levels through `trunk`."""
    if trunk is not None:
        v: Tensor = trunk(unet, x_t, timesteps, text, guidance)
    else:
        v = unet(x_t, timesteps, text, timestep_cond=guidance).sample
    return v
