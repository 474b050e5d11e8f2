"""From a prompt to what a UNet reads: one text encoder (SD 1.5) or two (SDXL)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from models.runtime.forward import Forward
from models.runtime.transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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
        is_pair = len(self.encoders) > 1
        self._forwards = [
            Forward(f"text-{number}", _TextEncoder(encoder, is_one_of_two=is_pair))
            for number, encoder in enumerate(self.encoders, start=1)
        ]

    def encode(self, prompt: str) -> PromptEmbeds:
        """Embed a prompt, cut to the encoders' length (77 tokens for CLIP); G is 1."""
        states, pooled = zip(
            *(self._run(number, prompt) for number in range(len(self.encoders))), strict=True
        )
        embeds = torch.cat(states, dim=-1)  # [1, L, D]
        return PromptEmbeds(embeds, pooled[-1] if len(pooled) > 1 else None, self._dropped(prompt))

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

    def forwards(self) -> Iterator[tuple[Forward, tuple[torch.Tensor, ...]]]:
        """Yield what runs for a prompt, with an example's inputs."""
        for number, forward in enumerate(self._forwards):
            yield forward, self._tokenize(number, "")

    def _run(self, number: int, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an encoder's states [1, L, D] of a prompt, and its pooled embedding [1, P]."""
        inputs = self._tokenize(number, prompt)
        flat = self._forwards[number](*inputs).clone()  # which the next prompt's overwrite
        length, width = inputs[0].shape[1], self.encoders[number].config.hidden_size
        states, pooled = flat[:, : length * width], flat[:, length * width :]
        return states.view(1, length, width), pooled

    def _tokenize(self, number: int, prompt: str) -> tuple[torch.Tensor, ...]:
        """Return token ids [1, L], and a mask of them where the encoder's config wants one."""
        tokenizer, encoder = self.tokenizers[number], self.encoders[number]
        tokens = tokenizer(
            prompt,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        parts = [tokens.input_ids]
        if getattr(encoder.config, "use_attention_mask", False):
            parts.append(tokens.attention_mask)
        return tuple(to_device(part, encoder.device) for part in parts)


class _TextEncoder(nn.Module):
    """A text encoder over prompts, with all that is read of it in one tensor."""

    def __init__(self, encoder: Any, *, is_one_of_two: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self._is_one_of_two = is_one_of_two

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Token ids [B, L], and a mask where there is one, to states and pooled [B, L * D + P]."""
        ids, *mask = inputs
        output = self.encoder(
            ids,
            attention_mask=mask[0] if mask else None,
            output_hidden_states=self._is_one_of_two,
        )
        states = output.hidden_states[-2] if self._is_one_of_two else output[0]  # [B, L, D]
        pooled = getattr(output, "text_embeds", None)  # [B, P], of a CLIPTextModelWithProjection
        parts = [states.flatten(1), *([] if pooled is None else [pooled])]
        return torch.cat(parts, dim=1)
