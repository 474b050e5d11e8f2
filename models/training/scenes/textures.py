"""Noise and textures that depend only on a seed per image.

The values come from an integer hash: they are equal on every device and in every batch. The
autoencoder also learns from dead leaves (Lee, Mumford and Huang 2001) and 1/f noise (Field 1987),
which have the statistics of photographs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom


def hashed(seeds: Tensor, salt: int, height: int, width: int) -> Tensor:
    """Return white noise [B, 1, H, W], uniform in 0..1, from integer seeds [B]."""
    rows = torch.arange(height, device=seeds.device, dtype=torch.int64)[None, :, None]
    columns = torch.arange(width, device=seeds.device, dtype=torch.int64)[None, None, :]
    key = ((seeds & 0xFFFFFF) * 7919 + salt * 104729)[:, None, None]
    n = (rows * 374761393 + columns * 668265263 + key * 1274126177) & 0xFFFFFFFF
    n = ((n ^ (n >> 15)) * 2246822519) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 3266489917) & 0xFFFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFFFF).float().div(0x1000000)[:, None]


def value_noise(seeds: Tensor, salt: int, size: tuple[int, int], cells: tuple[int, int]) -> Tensor:
    """Return smooth noise [B, 1, H, W] in 0..1 with `cells` lattice cells down and across."""
    lattice = hashed(seeds, salt, cells[0] + 1, cells[1] + 1)
    return F.interpolate(lattice, size=size, mode="bicubic", align_corners=True).clamp(0, 1)


def noise_of(seeds: Tensor, salt: int, size: tuple[int, int], cells: float) -> Tensor:
    """Return value noise [B, 1, H, W] with `cells` cells along the shorter side."""
    short = min(size)
    counts = (max(1, round(cells * size[0] / short)), max(1, round(cells * size[1] / short)))
    return value_noise(seeds, salt, size, counts)


def fractal(seeds: Tensor, salt: int, size: tuple[int, int], cells: float, octaves: int) -> Tensor:
    """Return a sum of octaves of value noise [B, 1, H, W], about 0..1, mean 0.5."""
    weights = [0.5**octave for octave in range(octaves)]
    layers = [
        weight * noise_of(seeds, salt + octave, size, cells * 2**octave)
        for octave, weight in enumerate(weights)
    ]
    return torch.stack(layers).sum(0) / sum(weights)


def blur(x: Tensor, radius: float) -> Tensor:
    """Return x [B, C, H, W] blurred by a gaussian of `radius` pixels (its standard deviation)."""
    if radius < 0.3:
        return x
    factor = int(max(1, radius // 2))  # a wide blur is computed on a smaller image
    size = x.shape[-2:]
    if factor > 1:
        small = (max(4, size[0] // factor), max(4, size[1] // factor))
        x = F.interpolate(x, size=small, mode="area")
        radius = radius / factor
    half = min(max(1, round(radius * 2.5)), min(x.shape[-2:]) - 1)
    taps = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (taps / radius) ** 2)
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    x = F.pad(x, (half, half, half, half), mode="replicate")
    x = F.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    x = F.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    if factor > 1:
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    return x


def dead_leaves(count: int, size: int, generator: torch.Generator, leaves: int = 60) -> Tensor:
    """Return [count, 3, size, size] in 0..1: opaque discs whose radii fall as r^-3."""
    axis = torch.linspace(0, 1, size)
    x, y = axis[None, None, :], axis[None, :, None]
    image = torch.rand(count, 3, 1, 1, generator=generator).expand(-1, -1, size, size).clone()
    for _ in range(leaves):
        u = torch.rand(count, 1, 1, 6, generator=generator)
        radius = 1 / torch.sqrt(u[..., 0] * (1 / 0.04**2 - 1 / 0.5**2) + 1 / 0.5**2)
        inside = torch.hypot(x - u[..., 1], y - u[..., 2]) - radius
        alpha = (0.5 - inside * size).clamp(0, 1)[:, None]
        colour = u[:, 0, 0, 3:].view(count, 3, 1, 1)
        image = torch.lerp(image, colour.expand_as(image), alpha)
    return image


def pink_noise(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Return [count, 3, size, size] in 0..1 with a power spectrum of 1/f^2."""
    fy = torch.fft.fftfreq(size)[:, None]
    fx = torch.fft.rfftfreq(size)[None]
    gain = 1 / torch.hypot(fy, fx).clamp_min(1 / size)
    shape = (count, 3, size, size // 2 + 1)
    white = torch.complex(
        torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    )
    field = torch.fft.irfft2(white * gain, s=(size, size))
    mix = torch.randn(count, 3, 3, 1, 1, generator=generator) * 0.35 + torch.eye(3)[..., None, None]
    field = (field[:, None] * mix).sum(2)
    field = field / field.std(dim=(1, 2, 3), keepdim=True)
    level = torch.rand(count, 3, 1, 1, generator=generator) * 0.5 + 0.25
    contrast = torch.rand(count, 1, 1, 1, generator=generator) * 0.18 + 0.06
    image: Tensor = (level + field * contrast).clamp(0, 1)
    return image
