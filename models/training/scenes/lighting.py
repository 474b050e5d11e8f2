"""Lighting of a G-buffer: normals, shading, shadows, grading. The styles share it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from models.training.scenes.gbuffer import GBuffer
from models.training.scenes.textures import blur

WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


class Normals(NamedTuple):
    """Unit normals of the inflated things, each [B, 1, H, W]; z points to the viewer."""

    x: Tensor
    y: Tensor
    z: Tensor


def colour(values: tuple[float, float, float], like: Tensor) -> Tensor:
    """Return a colour as [1, 3, 1, 1] on the device of `like`."""
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, 3, 1, 1)


def grey(image: Tensor) -> Tensor:
    """Return the luminance [B, 1, H, W] of a image [B, 3, H, W] (Rec. 709 weights)."""
    return (image * colour((0.2126, 0.7152, 0.0722), image)).sum(1, keepdim=True)


def saturate(image: Tensor, amount: float) -> Tensor:
    """Scale the saturation: 0 gives grey, 1 the same image."""
    return torch.lerp(grey(image).expand_as(image), image, amount).clamp(0, 1)


def contrast(image: Tensor, amount: float, middle: float = 0.5) -> Tensor:
    return ((image - middle) * amount + middle).clamp(0, 1)


def over(under: Tensor, paint: Tensor, alpha: Tensor) -> Tensor:
    """Composite `paint` over `under` by alpha [B, 1, H, W]."""
    return torch.lerp(under, paint.expand_as(under), alpha.expand_as(under))


def shift(plane: Tensor, right: float, down: float) -> Tensor:
    """Move a plane [B, C, H, W] by whole pixels; new pixels repeat the border."""
    dx, dy = round(right), round(down)
    height, width = plane.shape[-2:]
    pad = (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0))
    wide = F.pad(plane, pad, mode="replicate")
    top, left = max(-dy, 0), max(-dx, 0)
    return wide[..., top : top + height, left : left + width]


def normals(g: GBuffer, softness: float = 0.012, strength: float = 1.0) -> Normals:
    """Return the normals of the bulge, smoothed over `softness` of the shorter side."""
    short = min(g.size)
    surface = blur(g.bulge, softness * short)
    wide = F.pad(surface, (1, 1, 1, 1), mode="replicate")
    dx = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) * (0.5 * short * strength)
    dy = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) * (0.5 * short * strength)
    z = torch.rsqrt(dx * dx + dy * dy + 1)
    return Normals(-dx * z, -dy * z, z)


def lambert(g: GBuffer, n: Normals) -> Tensor:
    """Return the diffuse light 0..1 [B, 1, H, W] of a lamp above, in front and to one side."""
    return (n.x * g.light * 0.55 - n.y * 0.62 + n.z * 0.56).clamp(0, 1)


def gloss(g: GBuffer, n: Normals, sharpness: float) -> Tensor:
    """Return a Blinn-Phong highlight 0..1."""
    half = (n.x * g.light * 0.31 - n.y * 0.35 + n.z * 0.885).clamp(0, 1)
    return half**sharpness * g.alpha


def shadow(g: GBuffer, reach: float, softness: float) -> Tensor:
    """Return the cast shadow 0..1 outside the things, from the shifted distance field."""
    short = min(g.size)
    right = float(reach * short)
    from_left = shift(g.distance, right, right * 0.8)
    from_right = shift(g.distance, -right, right * 0.8)
    moved = torch.where(g.light < 0, from_left, from_right)
    return (0.5 - moved / softness).clamp(0, 1) * (1 - g.alpha)


def line(g: GBuffer, width: float) -> Tensor:
    """Return outlines 0..1 of `width` (of the shorter side), at least a pixel wide."""
    return ((width - g.edge) / g.pixel + 0.5).clamp(0, 1)


def rim(g: GBuffer, reach: float) -> Tensor:
    """Return a glow 0..1 that falls off on both sides of the silhouette."""
    return torch.exp(-g.distance.abs() / reach)


def vignette(g: GBuffer, strength: float) -> Tensor:
    height, width = g.size
    short = min(height, width)
    u = g.x * short / width * 2 - 1
    v = g.y * short / height * 2 - 1
    return 1 - strength * ((u * u + v * v) / 2) ** 1.2


def lit(g: GBuffer, ambient: float, softness: float = 0.012) -> Tensor:
    """Return the shaded things over the unshaded backdrop."""
    light = ambient + (1.25 - ambient) * lambert(g, normals(g, softness))
    return over(g.albedo, (g.albedo * light).clamp(0, 1), g.alpha)
