"""Signed distance fields of the sixteen kinds, as painted parts, back to front.

Distances are negative inside. Local coordinates: the thing fits about [-1, 1] x [-1, 1], x to
the right and y down. Formulas after Inigo Quilez, "2D distance functions"
(https://iquilezles.org/articles/distfunctions2d/).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Part(NamedTuple):
    """A part of a thing: its signed distance [n, H, W] and the role of its colour."""

    distance: Tensor
    role: str


def disc(x: Tensor, y: Tensor, cx: float, cy: float, r: float) -> Tensor:
    return torch.hypot(x - cx, y - cy) - r


def ellipse(  # noqa: PLR0917 - a shape's numbers in their usual order
    x: Tensor, y: Tensor, cx: float, cy: float, rx: float, ry: float
) -> Tensor:
    """First-order distance to an ellipse: exact on the line, close near it."""
    u, v = (x - cx) / rx, (y - cy) / ry
    length = torch.hypot(u, v)
    slope = torch.hypot(u / rx, v / ry).clamp_min(1e-4)
    return length * (length - 1) / slope


def box(  # noqa: PLR0917 - as above
    x: Tensor, y: Tensor, cx: float, cy: float, hx: float, hy: float, r: float = 0
) -> Tensor:
    """A box of half-widths hx, hy with corners rounded by r."""
    u, v = (x - cx).abs() - hx + r, (y - cy).abs() - hy + r
    return torch.hypot(u.clamp_min(0), v.clamp_min(0)) + torch.maximum(u, v).clamp_max(0) - r


def segment(
    x: Tensor, y: Tensor, a: tuple[float, float], b: tuple[float, float], r: float
) -> Tensor:
    """A stroke of half-width r from a to b."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    along = (((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return torch.hypot(x - a[0] - along * dx, y - a[1] - along * dy) - r


def polygon(x: Tensor, y: Tensor, corners: list[tuple[float, float]]) -> Tensor:
    """The exact distance to a polygon: the nearest edge, signed by the winding."""
    nearest = torch.full_like(x, 1e9)
    sign = torch.ones_like(x)
    for (ax, ay), (bx, by) in zip(corners, corners[-1:] + corners[:-1], strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        along = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        nearest = torch.minimum(nearest, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        above, below, side = y >= ay, y < by, ex * wy > ey * wx
        crosses = (above & below & side) | ~(above | below | side)
        sign = torch.where(crosses, -sign, sign)
    return sign * nearest.clamp_min(1e-12).sqrt()


def union(*distances: Tensor) -> Tensor:
    out = distances[0]
    for distance in distances[1:]:
        out = torch.minimum(out, distance)
    return out


def fold(x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Fold the plane into one of `count` equal wedges around the positive x axis."""
    wedge = 2 * math.pi / count
    angle = torch.atan2(y, x)
    angle = angle - wedge * torch.round(angle / wedge)
    radius = torch.hypot(x, y)
    return radius * angle.cos(), radius * angle.sin()


def circle(x: Tensor, y: Tensor) -> list[Part]:
    return [Part(disc(x, y, 0, 0, 0.85), "main")]


def square(x: Tensor, y: Tensor) -> list[Part]:
    return [Part(box(x, y, 0, 0, 0.76, 0.76, 0.06), "main")]


def triangle(x: Tensor, y: Tensor) -> list[Part]:
    return [Part(polygon(x, y, [(0, -0.88), (0.9, 0.7), (-0.9, 0.7)]) - 0.03, "main")]


def star(x: Tensor, y: Tensor) -> list[Part]:
    turns = [(0.97 if k % 2 == 0 else 0.43, math.pi * (k / 5 - 0.5)) for k in range(10)]
    corners = [(r * math.cos(a), r * math.sin(a)) for r, a in turns]
    return [Part(polygon(x, y, corners) - 0.02, "main")]


def heart(x: Tensor, y: Tensor) -> list[Part]:
    u, v = (x / 1.62).abs(), (0.82 - y) / 1.62  # Quilez' heart: tip at 0, up to about 1.1
    lobe = torch.hypot(u - 0.25, v - 0.75) - math.sqrt(2) / 4
    low = 0.5 * (u + v).clamp_min(0)
    body = torch.minimum(u**2 + (v - 1) ** 2, (u - low) ** 2 + (v - low) ** 2)
    body = body.clamp_min(1e-12).sqrt() * torch.sign(u - v)
    return [Part(torch.where(u + v > 1, lobe, body) * 1.62, "main")]


def house(x: Tensor, y: Tensor) -> list[Part]:
    return [
        Part(box(x, y, 0.42, -0.55, 0.1, 0.3), "dark"),
        Part(box(x, y, 0, 0.38, 0.66, 0.5), "main"),
        Part(polygon(x, y, [(0, -0.92), (0.88, -0.08), (-0.88, -0.08)]), "dark"),
        Part(box(x, y, -0.24, 0.56, 0.15, 0.32), "wood"),
        Part(box(x, y, 0.3, 0.34, 0.17, 0.17), "lamp"),
    ]


def tree(x: Tensor, y: Tensor) -> list[Part]:
    leaves = union(
        disc(x, y, 0, -0.5, 0.44), disc(x, y, -0.4, -0.08, 0.4), disc(x, y, 0.4, -0.08, 0.4),
        disc(x, y, 0, -0.12, 0.42),
    )  # fmt: skip
    return [Part(box(x, y, 0, 0.6, 0.13, 0.36), "wood"), Part(leaves, "main")]


def mountain(x: Tensor, y: Tensor) -> list[Part]:
    peaks = polygon(x, y, [(-0.25, -0.8), (0.15, -0.1), (0.38, -0.4), (1.0, 0.7), (-1.0, 0.7)])
    jags = [
        (-0.25, -0.8), (0.02, -0.34), (-0.1, -0.42), (-0.22, -0.22), (-0.36, -0.4), (-0.48, -0.34),
    ]  # fmt: skip
    return [Part(peaks, "main"), Part(polygon(x, y, jags), "eye")]


def sun(x: Tensor, y: Tensor) -> list[Part]:
    u, v = fold(x, y, 10)
    rays = segment(u, v, (0.66, 0), (0.92, 0), 0.07)
    return [Part(rays, "main"), Part(disc(x, y, 0, 0, 0.5), "main")]


def moon(x: Tensor, y: Tensor) -> list[Part]:
    crescent = torch.maximum(disc(x, y, 0, 0, 0.85), -disc(x, y, 0.42, -0.12, 0.7))
    return [Part(crescent, "main")]


def cloud(x: Tensor, y: Tensor) -> list[Part]:
    puffs = union(
        disc(x, y, -0.5, 0.1, 0.34), disc(x, y, -0.1, -0.18, 0.45), disc(x, y, 0.4, 0.0, 0.38),
        box(x, y, 0, 0.22, 0.84, 0.22, 0.2),
    )  # fmt: skip
    return [Part(puffs, "main")]


def flower(x: Tensor, y: Tensor) -> list[Part]:
    u, v = fold(x, y + 0.3, 6)
    return [
        Part(segment(x, y, (0, 0), (0, 0.95), 0.06), "leaf"),
        Part(ellipse(x, y, 0.26, 0.62, 0.24, 0.1), "leaf"),
        Part(disc(u, v, 0.38, 0, 0.245), "main"),
        Part(disc(x, y, 0, -0.3, 0.21), "lamp"),
    ]


def boat(x: Tensor, y: Tensor) -> list[Part]:
    hull = polygon(x, y, [(-0.92, 0.3), (0.92, 0.3), (0.58, 0.78), (-0.58, 0.78)])
    return [
        Part(box(x, y, 0, -0.25, 0.045, 0.6), "wood"),
        Part(polygon(x, y, [(0.1, -0.85), (0.72, 0.14), (0.1, 0.14)]), "sail"),
        Part(polygon(x, y, [(-0.1, -0.65), (-0.1, 0.14), (-0.6, 0.14)]), "light"),
        Part(hull, "main"),
    ]


def fish(x: Tensor, y: Tensor) -> list[Part]:
    return [
        Part(polygon(x, y, [(0.45, 0), (0.98, -0.42), (0.84, 0), (0.98, 0.42)]), "dark"),
        Part(polygon(x, y, [(-0.25, -0.3), (0.2, -0.66), (0.28, -0.25)]), "dark"),
        Part(ellipse(x, y, -0.12, 0, 0.76, 0.43), "main"),
        Part(disc(x, y, -0.5, -0.1, 0.11), "eye"),
        Part(disc(x, y, -0.52, -0.1, 0.055), "rubber"),
    ]


def car(x: Tensor, y: Tensor) -> list[Part]:
    wheel = (x.abs() - 0.5).abs()  # both wheels: mirrored at x = 0
    axle = torch.hypot(wheel, y - 0.42)
    return [
        Part(polygon(x, y, [(-0.5, -0.05), (-0.32, -0.5), (0.3, -0.5), (0.58, -0.05)]), "main"),
        Part(box(x, y, 0, 0.16, 0.95, 0.25, 0.12), "main"),
        Part(
            polygon(x, y, [(-0.38, -0.07), (-0.25, -0.4), (-0.04, -0.4), (-0.04, -0.07)]), "window"
        ),
        Part(polygon(x, y, [(0.06, -0.07), (0.06, -0.4), (0.25, -0.4), (0.44, -0.07)]), "window"),
        Part(axle - 0.22, "rubber"),
        Part(axle - 0.1, "metal"),
    ]


def mushroom(x: Tensor, y: Tensor) -> list[Part]:
    cap = torch.maximum(ellipse(x, y, 0, 0.08, 0.88, 0.85), y - 0.1)
    spots = union(
        disc(x, y, -0.38, -0.2, 0.14), disc(x, y, 0.1, -0.45, 0.15), disc(x, y, 0.48, -0.15, 0.12)
    )
    return [
        Part(box(x, y, 0, 0.45, 0.22, 0.42, 0.12), "cream"),
        Part(cap, "main"),
        Part(spots, "light"),
    ]


_SHAPES = (
    circle, square, triangle, star, heart, house, tree, mountain, sun, moon, cloud, flower, boat,
    fish, car, mushroom,
)  # fmt: skip
SHAPES: dict[str, Callable[[Tensor, Tensor], list[Part]]] = {f.__name__: f for f in _SHAPES}
"""The parts of each kind, from local coordinates [n, H, W]."""
