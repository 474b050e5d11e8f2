"""Renderers of the drawn styles: cel, ink, crayon, watercolour, pop art, and the doodle.

Each keeps the colour of the thing, except the ink sketch, which is grey. Patterns are in units of
the frame's shorter side.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.training.scenes.gbuffer import GBuffer
from models.training.scenes.lighting import (
    BLACK,
    WHITE,
    colour,
    contrast,
    gloss,
    grey,
    lambert,
    line,
    lit,
    normals,
    over,
    saturate,
)
from models.training.scenes.textures import blur, fractal, noise_of


def render_anime(g: GBuffer) -> Tensor:
    light = lambert(g, normals(g, 0.02))
    tone = torch.where(light > 0.42, 1.0, 0.68)
    flat = torch.lerp(g.back, g.flat, 0.75)
    cel = over(saturate(flat, 1.25), saturate(g.albedo, 1.15) * tone, g.alpha)
    spot = (gloss(g, normals(g, 0.02), 14) > 0.75).float()
    cel = over(cel, colour(WHITE, cel), spot * 0.75)
    return over(cel, colour((0.05, 0.04, 0.08), cel), line(g, 0.013))


def _paper(g: GBuffer, salt: int, roughness: float) -> Tensor:
    return 1 - roughness * (noise_of(g.seeds, salt, g.size, 48) - 0.5).abs() * 2


def render_illustration(g: GBuffer) -> Tensor:
    wash = fractal(g.seeds, 50, g.size, 5, 3)
    short = min(g.size)
    back = over(blur(g.back, 0.014 * short), colour(WHITE, g.back), torch.full_like(g.alpha, 0.45))
    thing = over(g.albedo, colour(WHITE, g.back), torch.full_like(g.alpha, 0.12))
    pool = torch.exp(g.distance.clamp_max(0) / 0.02) * 0.28  # pigment gathers at the rim
    thing = thing * (1 - pool) * (0.78 + 0.42 * wash)
    image = over(back * (0.9 + 0.2 * wash), thing, g.alpha)
    image = over(image, image * 0.45, line(g, 0.003) * 0.7)
    u = (g.x * short / g.size[1] - 0.5).abs() * 2
    v = (g.y * short / g.size[0] - 0.5).abs() * 2
    rough = (fractal(g.seeds, 53, g.size, 6, 2) - 0.5) * 0.16
    border = ((torch.maximum(u, v) + rough - 0.88) * 22).clamp(0, 1)
    paper = colour((0.98, 0.95, 0.88), image) * _paper(g, 55, 0.07)
    return (over(image, paper, border) * _paper(g, 55, 0.09)).clamp(0, 1)


def _hatch(g: GBuffer, angle: float, spacing: float, tone: Tensor) -> Tensor:
    """Return ink 0..1: lines at `angle` every `spacing`, of a width proportional to `tone` 0..1."""
    sway = (noise_of(g.seeds, 95, g.size, 6) - 0.5) * spacing * 0.7
    across = g.x * math.sin(angle) + g.y * math.cos(angle) + sway
    wave = (torch.remainder(across / spacing, 1) - 0.5).abs() * 2 * spacing / 2
    return ((tone * spacing / 2 - wave) / g.pixel + 0.5).clamp(0, 1) * (tone > 0.02)


def render_sketch_bw(g: GBuffer) -> Tensor:
    shade = grey(lit(g, 0.45))
    dark = 1 - over(grey(g.back) * 0.45 + 0.55, shade, g.alpha)
    first = _hatch(g, 0.8, 0.055, ((dark - 0.22) * 0.95).clamp(0, 0.7))
    second = _hatch(g, -0.75, 0.055, ((dark - 0.58) * 1.2).clamp(0, 0.7))
    skyline = (blur(g.ground, 0.6) - 0.5).abs().mul(-3).add(1.2).clamp(0, 1) * (1 - g.alpha)
    ink = torch.maximum(torch.maximum(first, second), torch.maximum(line(g, 0.01), skyline * 0.8))
    paper = 0.97 * _paper(g, 56, 0.03)
    return (paper * (1 - 0.9 * ink)).clamp(0, 1).expand(-1, 3, -1, -1).contiguous()


def render_sketch_colour(g: GBuffer) -> Tensor:
    paper = colour((0.985, 0.975, 0.95), g.back)
    slant = g.x * 0.75 + g.y
    wave = torch.sin(slant * 2 * math.pi / 0.06 + noise_of(g.seeds, 96, g.size, 7) * 5)
    tooth = noise_of(g.seeds, 97, g.size, 60)
    stroke = (0.62 + 0.38 * wave + (tooth - 0.5) * 0.9).clamp(0, 1)
    back = over(paper.expand_as(g.back), g.back, stroke * 0.5)
    shade = (0.75 + 0.3 * lambert(g, normals(g, 0.02))).clamp(0, 1)
    thing = over(paper.expand_as(g.back), g.albedo * shade, (0.45 + 0.55 * stroke))
    image = over(back, thing, g.alpha)
    return over(image, g.albedo * 0.5, line(g, 0.009) * (0.55 + 0.45 * tooth)).clamp(0, 1)


def render_vibrant(g: GBuffer) -> Tensor:
    back = contrast(saturate(g.flat, 2.2), 1.3)
    cell = 0.105
    u, v = (torch.remainder(c / cell, 1) - 0.5 for c in (g.x + g.y, g.x - g.y))
    level = g.y * min(g.size) / g.size[0]
    dots = ((0.16 + 0.3 * level - torch.hypot(u, v)) * cell / g.pixel / 1.4).clamp(0, 1)
    accent = torch.where(grey(back) > 0.5, back * 0.55, back + (1 - back) * 0.45)
    back = over(back, accent, dots)
    thing = saturate(g.albedo, 1.6)
    tone = torch.where(lambert(g, normals(g, 0.02)) > 0.4, 1.0, 0.8)
    ring = ((0.028 - g.distance) / g.pixel + 0.5).clamp(0, 1)
    image = over(back, colour(WHITE, back), ring * (1 - g.alpha))
    image = over(image, thing * tone, g.alpha)
    return over(image, colour(BLACK, image), line(g, 0.011)).clamp(0, 1)


def render_doodle(g: GBuffer) -> Tensor:
    """Flat colours, as filled in on a canvas; half of the doodles have an outline."""
    inked = (g.seeds % 2 == 0).view(-1, 1, 1, 1).float()
    image = over(g.flat, g.albedo, g.alpha)
    return over(image, colour((0.08, 0.08, 0.08), image), line(g, 0.008) * inked).clamp(0, 1)
