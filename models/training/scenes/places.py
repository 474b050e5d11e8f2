"""The eight places as backgrounds: colour, ground mask and depth. Knows no things or styles."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.training.scenes.palette import COLOURS
from models.training.scenes.textures import fractal, hashed, noise_of


class Backdrop(NamedTuple):
    """Backgrounds of a batch."""

    image: Tensor  # [B, 3, H, W] in 0..1, with texture
    flat: Tensor  # [B, 3, H, W] in 0..1, in flat colours, as in a doodle
    ground: Tensor  # [B, 1, H, W], 1 on the ground
    depth: Tensor  # [B, 1, H, W], 0 at the viewer, 1 far away


class Field(NamedTuple):
    """Pixel positions, horizons and seeds of a batch."""

    x: Tensor  # [1, 1, H, W], in units of the shorter side
    y: Tensor  # [1, 1, H, W], 0 at the top, 1 at the bottom
    horizon: Tensor  # [B, 1, 1, 1], fraction of the height
    seeds: Tensor  # [B]
    size: tuple[int, int]


def _rgb(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


# Flat colours of sky and ground.
FLAT = {
    "sky": ((0.55, 0.78, 0.96), (0.55, 0.78, 0.96)),
    "sea": ((0.72, 0.87, 0.97), (0.16, 0.45, 0.68)),
    "meadow": ((0.66, 0.85, 0.97), (0.45, 0.72, 0.32)),
    "desert": ((0.99, 0.90, 0.70), (0.90, 0.70, 0.42)),
    "night": ((0.07, 0.09, 0.24), (0.10, 0.13, 0.20)),
    "snow": ((0.74, 0.82, 0.90), (0.95, 0.96, 0.98)),
    "room": ((0.89, 0.80, 0.68), (0.62, 0.44, 0.30)),
    "plain": ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
}
_WAVY = {"meadow": 0.05, "desert": 0.06, "snow": 0.045, "night": 0.03}


def skyline(place: str, f: Field) -> Tensor:
    """Return the y of the ground's edge over x, [B, 1, H, W] in fractions of the height."""
    wave = _WAVY.get(place, 0.0)
    if not wave:
        return f.horizon
    phase = hashed(f.seeds, 11, 1, 2) * 6.28  # [B, 1, 1, 2]
    a, b = phase[..., :1], phase[..., 1:]
    return f.horizon + wave * (torch.sin(f.x * 4 + a) * 0.7 + torch.sin(f.x * 7.3 + b) * 0.3)


def _clouds(f: Field) -> Tensor:
    return ((fractal(f.seeds, 20, f.size, 3, 3) - 0.52) * 4).clamp(0, 1)


def sky(place: str, f: Field, top: Tensor) -> Tensor:
    paler = top + (1 - top) * 0.55 * (f.y / f.horizon).clamp(0, 1)
    if place == "night":
        stars = (
            hashed(f.seeds, 30, *(round(42 * s / min(f.size)) for s in f.size)) > 0.965
        ).float()
        stars = torch.nn.functional.interpolate(stars, size=f.size, mode="bilinear")
        glow = top + _rgb(0.10, 0.10, 0.22).to(top.device) * f.y
        return (glow + stars * 0.8).clamp(0, 1)
    if place == "room":
        stripes = torch.sin(f.x * 44 + f.horizon * 20).clamp(-0.3, 0.3)
        return top * (1 + stripes * 0.12)
    if place == "sky":
        return torch.lerp(paler, torch.ones_like(paler), _clouds(f) * 0.75)
    if place in ("sea", "meadow"):
        return torch.lerp(paler, torch.ones_like(paler), _clouds(f) * 0.4)
    return paler


def soil(place: str, f: Field, base: Tensor) -> Tensor:
    below = ((f.y - f.horizon) / (1 - f.horizon)).clamp(0, 1)  # 0 at the horizon, 1 at the feet
    if place == "sea":
        wobble = noise_of(f.seeds, 41, f.size, 7) * 5
        bands = torch.sin(34 * below.clamp_min(0).sqrt() + f.x * 3 + wobble)
        return base * (1.1 - 0.35 * below) + (bands - 0.55).clamp_min(0) * 0.5
    if place == "meadow":
        tufts = noise_of(f.seeds, 42, f.size, 34) - 0.5
        return base * (1.12 - 0.3 * below + tufts * 0.5)
    if place == "desert":
        dunes = torch.sin(26 * below + 5 * torch.sin(f.x * 3 + f.horizon * 40))
        return base * (1.06 - 0.14 * below + dunes * 0.07)
    if place == "snow":
        drifts = noise_of(f.seeds, 43, f.size, 5) - 0.5
        return base * (1 - 0.10 * below + drifts * 0.12)
    if place == "room":
        boards = torch.cos((f.x - 0.5) / (below + 0.35) * 18).abs()
        return base * (1.1 - 0.25 * below) * (0.80 + 0.2 * (boards * 6).clamp(0, 1))
    return base * (1.1 - 0.3 * below)


def render_place(place: str, grounds: list[str], f: Field) -> Backdrop:
    """Render one place for a batch. `grounds` are the plain colours' names, one per image."""
    count, device = len(f.seeds), f.seeds.device
    shape = (count, 1, *f.size)
    if place == "plain":
        colours = torch.tensor([COLOURS[name] for name in grounds], device=device)
        flat = colours.view(count, 3, 1, 1).expand(-1, -1, *f.size)
        image = (flat * (1.02 - 0.08 * f.y)).clamp(0, 1)
        return Backdrop(image, flat, torch.zeros(shape, device=device), f.y.expand(shape) * 0 + 0.5)
    lit = 1 + (hashed(f.seeds, 12, 1, 3)[:, 0, :, :].view(count, 3, 1, 1) - 0.5) * 0.14
    top = (_rgb(*FLAT[place][0]).to(device) * lit).clamp(0, 1)
    base = (_rgb(*FLAT[place][1]).to(device) * lit).clamp(0, 1)
    edge = skyline(place, f)
    ground = ((f.y - edge) * f.size[0] + 0.5).clamp(0, 1).expand(shape)
    if place == "sky":
        ground = torch.zeros(shape, device=device)
    image = torch.lerp(sky(place, f, top).expand(count, 3, *f.size), soil(place, f, base), ground)
    flat = torch.lerp(top.expand(-1, -1, *f.size), base.expand(-1, -1, *f.size), ground)
    near = ((f.y - edge) / (1 - edge)).clamp(0, 1)
    return Backdrop(image.clamp(0, 1), flat, ground, (1 - near).expand(shape))
