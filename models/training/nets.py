"""The networks and the noise schedule that models/pocket ships, and how they are put together."""

from __future__ import annotations

from diffusers import LCMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from models.training.tokens import MAX_TOKENS, build_tokenizer

TEXT_WIDTH = 128
TEXT_LAYERS = 4
CHANNELS = (48, 96, 160, 144)
NORM_GROUPS = 16
HEADS = 4
GUIDANCE_WIDTH = 256  # of the sinusoidal embedding of w = guidance - 1


def build_text_encoder() -> CLIPTextModel:
    """Return a small CLIP text encoder; the ids of its config are the tokenizer's."""
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
    """Return the UNet: four levels, so that 64 x 64 latents meet in an 8 x 8 bottleneck.

    Attention stands on the two small levels alone (256 tokens at 512 x 512). `guided` adds the
    projection of the guidance embedding (the student has it, the teacher does not). A pooled
    prompt is added to the time embedding: it speaks on every level, also where no attention is.
    """
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=4,
        out_channels=4,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=(
            "DownBlock2D",
            "DownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
        ),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
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
