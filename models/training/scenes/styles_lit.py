"""Renderers of the styles that light the scene: photographs, renders, concept art.

Each keeps the colour of the thing. Patterns are in units of the frame's shorter side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.training.scenes.gbuffer import GBuffer
from models.training.scenes.lighting import (
    WHITE,
    colour,
    contrast,
    gloss,
    grey,
    lambert,
    lit,
    normals,
    over,
    rim,
    saturate,
    shadow,
    shift,
    vignette,
)
from models.training.scenes.textures import blur, fractal, hashed, noise_of, value_noise


def render_none(g: GBuffer) -> Tensor:
    shade = lit(g, 0.55)
    return shade * (1 - 0.35 * shadow(g, 0.03, 0.03))


def render_cinematic(g: GBuffer) -> Tensor:
    image = lit(g, 0.3) * (1 - 0.5 * shadow(g, 0.05, 0.06))
    image = over(blur(g.back, 0.012 * min(g.size)) * 0.72, image, g.alpha)
    tone = grey(image)
    teal, orange = colour((-0.07, 0.03, 0.06), image), colour((0.09, 0.02, -0.07), image)
    image = contrast(image, 1.15, 0.42) + teal * (1 - tone) + orange * tone
    image = image * vignette(g, 0.75)
    bar = ((g.y * min(g.size) / g.size[0] - 0.5).abs() < 0.43).float()
    return (image * bar).clamp(0, 1)


def render_digital(g: GBuffer) -> Tensor:
    low, high = colour((0.16, 0.06, 0.34), g.back), colour((0.05, 0.28, 0.48), g.back)
    fall = (g.y * min(g.size) / g.size[0]).clamp(0, 1)
    wash = high + (low - high) * fall
    back = blur(g.flat, 0.03 * min(g.size)) * 0.42 + wash * 0.62
    image = over(back, lit(g, 0.45, 0.03), g.alpha)
    side = (normals(g, 0.03).x * -g.light * 1.4).clamp(0, 1) * g.alpha
    cyan, magenta = colour((0.15, 0.95, 1.0), image), colour((1.0, 0.25, 0.85), image)
    image = over(image, magenta, side * 0.55)
    halo = torch.exp(-g.distance.clamp_min(0) / 0.03) * (1 - g.alpha)
    neon = torch.exp(-((g.distance.abs() / 0.009) ** 2))
    return over(image + cyan * halo * 0.38, cyan, neon * 0.85).clamp(0, 1)


def render_dynamic(g: GBuffer) -> Tensor:
    short = min(g.size)
    image = contrast(saturate(lit(g, 0.35), 1.2), 1.25)
    reach = 0.05 * short
    trail = sum((shift(image, k * reach, -k * reach * 0.35) for k in range(-3, 4)), start=image * 0)
    veil = shift(g.alpha, 0, 0)
    for k in range(1, 5):
        veil = torch.maximum(veil, shift(g.alpha, -k * reach, k * reach * 0.35) * (0.75 - 0.15 * k))
    smeared = over(trail / 7, blur(trail / 7, 0.01 * short), torch.full_like(g.alpha, 0.5))
    along = (g.x * 0.35 + g.y) * 30 + noise_of(g.seeds, 91, g.size, 2) * 3
    streak = (torch.sin(along) * torch.sin(along * 0.37) - 0.45).clamp_min(0) * 1.5
    back = contrast(smeared, 1.2) + streak * 0.75 * (1 - veil)
    return over(back, image, g.alpha).clamp(0, 1)


def render_environment(g: GBuffer) -> Tensor:
    short = min(g.size)
    haze = colour((0.80, 0.84, 0.86), g.back)
    back = over(saturate(blur(g.back, 0.008 * short), 0.6), haze, 0.35 + 0.4 * g.depth)
    level = g.y * short / g.size[0]
    for layer, base in enumerate((0.42, 0.5)):  # far hills, paler the farther
        ridge = base + 0.2 * (value_noise(g.seeds, 60 + layer, (1, g.size[1]), (1, 7)) - 0.5)
        hill = ((level - ridge) / (0.02 + 0.01 * layer)).clamp(0, 1) * (1 - g.ground) * 0.5
        back = over(back, colour((0.56 - 0.1 * layer, 0.64 - 0.08 * layer, 0.70), back), hill)
    image = over(back, lit(g, 0.6, 0.02), g.alpha * 0.9)
    mist = torch.exp(-(((level - g.feet) / 0.13) ** 2)) * fractal(g.seeds, 64, g.size, 3, 2)
    return over(image, haze, (mist * 0.9).clamp(0, 0.8)).clamp(0, 1)


def render_fantasy(g: GBuffer) -> Tensor:
    swirl = fractal(g.seeds, 80, g.size, 4, 3)
    purple, gold = colour((0.30, 0.10, 0.46), g.back), colour((1.0, 0.80, 0.36), g.back)
    back = torch.lerp(g.flat * 0.55, purple.expand_as(g.back), 0.62) * (0.55 + 0.9 * swirl)
    aura = torch.exp(-g.distance.clamp_min(0) / 0.10) * (0.55 + 0.6 * swirl)
    back = back + (gold - back) * (aura * 0.75).clamp(0, 1)
    image = over(back, lit(g, 0.6, 0.02) * (0.8 + 0.4 * swirl), g.alpha)
    image = over(image, gold, rim(g, 0.006) * 0.8)
    dots = hashed(g.seeds, 81, *(round(18 * s / min(g.size)) for s in g.size))
    sparks = torch.nn.functional.interpolate((dots > 0.95).float(), size=g.size, mode="bicubic")
    spark = (sparks.clamp(0, 1) ** 3) * (1 - 0.7 * g.alpha)
    return over(image, colour((1.0, 0.95, 0.75), image), spark).clamp(0, 1)


def render_photograph(g: GBuffer) -> Tensor:
    short = min(g.size)
    back = contrast(blur(g.back, 0.045 * short), 1.1)
    bokeh = hashed(g.seeds, 31, *(round(9 * s / short) for s in g.size))
    discs = torch.nn.functional.interpolate((bokeh > 0.86).float(), size=g.size, mode="bicubic")
    back = back + 0.12 * ((discs - 0.45) * 6).clamp(0, 1)
    light = 0.45 + 0.75 * lambert(g, normals(g, 0.03))
    thing = saturate(g.albedo, 0.88) * light + 0.10 * gloss(g, normals(g, 0.03), 10)
    soft = 0.45 * shadow(g, 0.04, 0.12)
    image = over(back * (1 - soft), thing, blur(g.alpha, 0.005 * short))
    image = image * vignette(g, 0.3) * colour((1.03, 1.0, 0.95), image)
    grain = blur(hashed(g.seeds, 33, *g.size) - 0.5, 0.6 * short / 512) * 0.075
    return (image + grain).clamp(0, 1)


def render_raytraced(g: GBuffer) -> Tensor:
    short = min(g.size)
    n = normals(g, 0.006)
    light = 0.35 + 0.8 * lambert(g, n)
    mirror = torch.lerp(
        colour((0.85, 0.93, 1.0), g.back),
        colour((0.22, 0.2, 0.2), g.back),
        ((n.y + 0.25) * 5).clamp(0, 1),
    )
    fresnel = 0.12 + 0.6 * (1 - n.z) ** 2
    thing = over(g.albedo * light, mirror, fresnel)
    thing = over(thing, colour(WHITE, thing), (gloss(g, n, 60) * 1.6).clamp(0, 1))
    level = g.y * short / g.size[0]
    floor = ((level - 0.66) * g.size[0] / 2).clamp(0, 1)
    far = (level - 0.58).clamp_min(0.02)
    checks = torch.sin((g.x - g.size[1] / short / 2) / far * 1.5) * torch.sin(1.0 / far)
    tiles = torch.where(checks > 0, 0.92, 0.35)
    base = over(g.back, colour((0.85, 0.85, 0.88), g.back), torch.full_like(g.alpha, 0.35))
    back = over(blur(g.back, 0.01 * short), base * tiles, floor)
    flipped = _reflection(g, thing)
    back = over(back, flipped[:, :3], flipped[:, 3:] * floor * 0.5)
    back = back * (1 - 0.5 * shadow(g, 0.05, 0.01))
    return over(back, thing, g.alpha).clamp(0, 1)


def _reflection(g: GBuffer, thing: Tensor) -> Tensor:
    """Return the things mirrored below their feet, colours and alpha [B, 4, H, W]."""
    height = g.size[0]
    planes = torch.cat((thing, g.alpha), 1)
    rows = torch.arange(height, device=planes.device).view(1, 1, -1, 1)
    source = (2 * g.feet * height - 1 - rows).round()
    seen = (source >= 0) & (source < height) & (rows > g.feet * height)
    index = source.clamp(0, height - 1).long().expand(-1, 4, -1, g.size[1])
    mirrored = planes.gather(2, index)
    return torch.cat((mirrored[:, :3], mirrored[:, 3:] * seen), 1)


def render_clay(g: GBuffer) -> Tensor:
    short = min(g.size)
    cream = colour((0.93, 0.90, 0.86), g.back)
    back = over(blur(g.flat, 0.02 * short), cream, torch.full_like(g.alpha, 0.55))
    back = back * (1.02 - 0.12 * (g.y * short / g.size[0]))
    light = 0.42 + 0.78 * lambert(g, normals(g, 0.035, 1.3))
    clay = over(g.albedo, cream, torch.full_like(g.alpha, 0.16)) * light
    soft = 0.5 * shadow(g, 0.07, 0.16) + 0.35 * torch.exp(-g.distance.clamp_min(0) / 0.03)
    return over(back * (1 - soft * (1 - g.alpha)), clay, g.alpha).clamp(0, 1)
