"""Pictures on their way from the device: what is fine about them goes along, in one copy."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Picture:
    """A row's picture, uint8 [H, W, 3], and whether there is any: see `pack`."""

    pixels: torch.Tensor
    has_latents: bool
    has_pixels: bool


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """Clamp and round float pixels to uint8; the shape stays."""
    return pixels.clamp(0.0, 255.0).round().to(torch.uint8)


def pack(latents: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Pack what latents [B, C, h, w] were decoded to, [B, H, W, 3], into bytes [B, H * W * 3 + 2].

    A row ends in two bytes that are 1 where it is as it should be: its latents all finite and not
    all equal, its pixels all finite. Nothing waits for the device.
    """
    flat = latents.flatten(1)  # [B, C * h * w]
    has_latents = torch.isfinite(flat).all(1) & (flat.amin(1) != flat.amax(1))  # [B]
    has_pixels = torch.isfinite(pixels).flatten(1).all(1)  # [B]
    flags = torch.stack([has_latents, has_pixels], 1).to(torch.uint8)  # [B, 2]
    return torch.cat([to_uint8(pixels).flatten(1), flags], 1)


def unpack(packed: torch.Tensor, height: int, width: int) -> Picture:
    """Return the picture of one row that was packed, [H * W * 3 + 2] on the host."""
    has_latents, has_pixels = packed[-2:].tolist()
    return Picture(packed[:-2].view(height, width, 3), bool(has_latents), bool(has_pixels))
