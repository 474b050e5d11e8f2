"""From a prompt to what a UNet reads: one text encoder (SD 1.5) or two (SDXL)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from models.transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class PromptEmbeds:
    """A prompt embedded: `embeds` [G, L, D], `pooled` [G, P] of SDXL, `dropped` tokens.

    G is 1, or 2 for classifier-free guidance: what to lead away from, then the prompt.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None
    dropped: int


class PromptEncoder:
    """The tokenizers and text encoders of one checkpoint.

    With two encoders their penultimate hidden states stand side by side, and the second one's
    projection is the pooled embedding. `has_zero_negative` says that no negative prompt means
    zeros, and not the embedding of an empty one (diffusers' `force_zeros_for_empty_prompt`).
    """

    def __init__(
        self, tokenizers: Sequence[Any], encoders: Sequence[Any], *, has_zero_negative: bool = False
    ) -> None:
        self.tokenizers, self.encoders = list(tokenizers), list(encoders)
        self.has_zero_negative = has_zero_negative

    def encode(self, prompt: str) -> PromptEmbeds:
        """Embed a prompt, cut to the encoders' length (77 tokens for CLIP); G is 1."""
        pairs = list(zip(self.tokenizers, self.encoders, strict=True))
        if len(pairs) == 1:
            return PromptEmbeds(self._run(*pairs[0], prompt)[0], None, self._dropped(prompt))
        outputs = [self._run(*pair, prompt, output_hidden_states=True) for pair in pairs]
        embeds = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)  # [1, L, D]
        return PromptEmbeds(embeds, outputs[1][0], self._dropped(prompt))

    def encode_guided(self, prompt: str, negative_prompt: str | None) -> PromptEmbeds:
        """Embed what to lead away from and the prompt; G is 2."""
        guided = self.encode(prompt)
        if negative_prompt is None and self.has_zero_negative:
            zeros = None if guided.pooled is None else torch.zeros_like(guided.pooled)
            unguided = PromptEmbeds(torch.zeros_like(guided.embeds), zeros, 0)
        else:
            unguided = self.encode(negative_prompt or "")
        pooled = None
        if guided.pooled is not None and unguided.pooled is not None:
            pooled = torch.cat([unguided.pooled, guided.pooled])
        embeds = torch.cat([unguided.embeds, guided.embeds])
        return PromptEmbeds(embeds, pooled, guided.dropped)

    def _dropped(self, prompt: str) -> int:
        return max(
            max(
                0, len(tokenizer(prompt, verbose=False).input_ids) - int(tokenizer.model_max_length)
            )
            for tokenizer in self.tokenizers
        )

    def _run(self, tokenizer: Any, encoder: Any, prompt: str, **options: bool) -> Any:
        tokens = tokenizer(
            prompt,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        uses_mask = getattr(encoder.config, "use_attention_mask", False)
        mask = to_device(tokens.attention_mask, encoder.device) if uses_mask else None
        return encoder(to_device(tokens.input_ids, encoder.device), attention_mask=mask, **options)
