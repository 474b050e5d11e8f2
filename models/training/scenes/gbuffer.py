"""Scenes rasterised into the planes that every style renders from. Knows no styles or captions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from models.training.scenes.palette import COLOURS, part_colour
from models.training.scenes.places import Backdrop, Field, render_place
from models.training.scenes.scene import Scene, Thing
from models.training.scenes.shapes import SHAPES
from models.training.scenes.textures import value_noise

FAR = 4.0  # a distance larger than any in a picture


@dataclass(frozen=True)
class GBuffer:
    """The planes of a batch of scenes. Lengths are in units of the frame's shorter side."""

    albedo: Tensor  # [B, 3, H, W] unlit colours over the backdrop
    back: Tensor  # [B, 3, H, W] the backdrop
    flat: Tensor  # [B, 3, H, W] the backdrop in flat colours
    alpha: Tensor  # [B, 1, H, W] coverage by things
    distance: Tensor  # [B, 1, H, W] signed, to the silhouette; negative inside
    edge: Tensor  # [B, 1, H, W] distance to the nearest drawn line
    bulge: Tensor  # [B, 1, H, W] height of an inflated thing, 0 outside
    ground: Tensor  # [B, 1, H, W]
    depth: Tensor  # [B, 1, H, W]
    feet: Tensor  # [B, 1, 1, 1] the foot of the lowest thing, a fraction of the height
    x: Tensor  # [1, 1, H, W]
    y: Tensor  # [1, 1, H, W]
    light: Tensor  # [B, 1, 1, 1] -1 from the left, 1 from the right
    seeds: Tensor  # [B]

    @property
    def size(self) -> tuple[int, int]:
        return self.albedo.shape[-2], self.albedo.shape[-1]

    @property
    def pixel(self) -> float:
        return 1 / min(self.size)


@dataclass
class _Layer:
    """The rasterised things of n scenes, one of each."""

    colour: Tensor  # [n, 3, H, W]
    alpha: Tensor  # [n, 1, H, W]
    distance: Tensor  # [n, 1, H, W]
    edge: Tensor  # [n, 1, H, W]
    radius: Tensor  # [n, 1, 1, 1]


def frame(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x and y of the pixel centres, [1, 1, H, W], in units of the shorter side."""
    short = min(height, width)
    y = (torch.arange(height, device=device) + 0.5) / short
    x = (torch.arange(width, device=device) + 0.5) / short
    y, x = torch.meshgrid(y, x, indexing="ij")
    return x[None, None], y[None, None]


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).view(-1, 1, 1)


def _draw_kind(kind: str, things: list[Thing], x: Tensor, y: Tensor) -> _Layer:
    """Rasterise things of one kind at x and y [n, H, W], in units of the shorter side."""
    short, height, width = min(x.shape[-2:]), x.shape[-2], x.shape[-1]
    size = _column([t.size for t in things], x)
    cos = _column([t.tilt for t in things], x).cos()
    sin = _column([t.tilt for t in things], x).sin()
    dx = (x - _column([t.x * width / short for t in things], x)) / size
    dy = (y - _column([t.y * height / short for t in things], x)) / size
    parts = SHAPES[kind](cos * dx + sin * dy, cos * dy - sin * dx)
    main = torch.tensor([COLOURS[t.colour] for t in things], device=x.device)
    colour = torch.zeros(len(things), 3, height, width, device=x.device)
    alpha = torch.zeros(len(things), height, width, device=x.device)
    silhouette = torch.full_like(alpha, FAR)
    edge = torch.full_like(alpha, FAR)
    for part in parts:
        d = part.distance * size
        cover = (0.5 - d * short).clamp(0, 1)
        paint = part_colour(part.role, main)[:, :, None, None]
        # On the empty canvas the colour is opaque (alpha feathers it later); on a part it blends.
        blend = torch.where(alpha > 0, cover, (cover > 0).float())[:, None]
        colour = torch.lerp(colour, paint.expand_as(colour), blend)
        alpha = torch.maximum(alpha, cover)
        silhouette = torch.minimum(silhouette, d)
        # A part hides the lines beneath it.
        edge = torch.where(d < 0, -d, torch.minimum(edge, d))
    return _Layer(colour, alpha[:, None], silhouette[:, None], edge[:, None], size[:, None])


def _draw_slot(
    scenes: list[Scene], slot: int, x: Tensor, y: Tensor
) -> tuple[list[int], list[_Layer]]:
    """Rasterise the slot-th thing of every scene that has one, grouped by kind."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, scene in enumerate(scenes):
        if slot < len(scene.things):
            groups[scene.things[slot].kind].append(row)
    rows: list[int] = []
    layers = []
    for kind, members in groups.items():
        things = [scenes[row].things[slot] for row in members]
        index = torch.tensor(members, device=x.device)
        layers.append(_draw_kind(kind, things, x[index], y[index]))
        rows += members
    return rows, layers


def _backdrop(scenes: list[Scene], x: Tensor, y: Tensor, size: tuple[int, int]) -> Backdrop:
    device = x.device
    groups: dict[str, list[int]] = defaultdict(list)
    for row, scene in enumerate(scenes):
        groups[scene.place].append(row)
    planes: list[Backdrop] = []
    order: list[int] = []
    short = min(size)
    for place, rows in groups.items():
        horizon = torch.tensor([scenes[r].horizon for r in rows], device=device).view(-1, 1, 1, 1)
        seeds = torch.tensor([scenes[r].seed for r in rows], device=device)
        field = Field(x, y * short / size[0], horizon, seeds, size)
        planes.append(render_place(place, [scenes[r].ground for r in rows], field))
        order += rows
    back = torch.argsort(torch.tensor(order, device=device))
    return Backdrop(*(torch.cat(list(p))[back] for p in zip(*planes, strict=True)))


def _wobble(seeds: Tensor, size: tuple[int, int], amount: float) -> tuple[Tensor, Tensor]:
    """Return shifts [B, H, W] that make lines look hand-drawn."""
    slow = [value_noise(seeds, salt, size, (6, 6))[:, 0] - 0.5 for salt in (71, 72)]
    fast = [value_noise(seeds, salt, size, (17, 17))[:, 0] - 0.5 for salt in (73, 74)]
    return (slow[0] + fast[0] * 0.25) * amount, (slow[1] + fast[1] * 0.25) * amount


def rasterise(
    scenes: list[Scene], size: tuple[int, int], device: torch.device, wobble: float = 0.0
) -> GBuffer:
    """Rasterise scenes at `size` (height, width); `wobble` is the size of the bends in lines."""
    x, y = frame(*size, device)
    seeds = torch.tensor([s.seed for s in scenes], device=device)
    backdrop = _backdrop(scenes, x, y, size)
    count = len(scenes)
    px, py = x[:, 0].expand(count, -1, -1), y[:, 0].expand(count, -1, -1)
    if wobble:
        shift = _wobble(seeds, size, wobble)
        px, py = px + shift[0], py + shift[1]
    albedo, plane = backdrop.image.clone(), (count, 1, *size)
    alpha = torch.zeros(plane, device=device)
    distance = torch.full(plane, FAR, device=device)
    edge, bulge = distance.clone(), torch.zeros(plane, device=device)
    for slot in range(max(len(s.things) for s in scenes)):
        rows, layers = _draw_slot(scenes, slot, px, py)
        index = torch.tensor(rows, device=device)
        new = _Layer(
            *(torch.cat([getattr(layer, f) for layer in layers]) for f in _Layer.__annotations__)
        )
        albedo[index] = torch.lerp(albedo[index], new.colour, new.alpha.expand_as(new.colour))
        alpha[index] = torch.maximum(alpha[index], new.alpha)
        inside = new.distance < 0
        edge[index] = torch.where(inside, new.edge, torch.minimum(edge[index], new.edge))
        distance[index] = torch.where(
            inside, new.distance, torch.minimum(distance[index], new.distance)
        )
        reach = new.radius * 0.5
        slope = 1 - (1 + new.distance / reach).clamp(0, 1)  # 0 at the rim, 1 well inside
        puffed = reach * (1 - (1 - slope) ** 2).clamp_min(0).sqrt()
        bulge[index] = torch.where(inside, puffed, bulge[index])
    feet = [max(t.y + t.size * 0.75 * min(size) / size[0] for t in s.things) for s in scenes]
    return GBuffer(
        albedo=albedo.clamp(0, 1),
        back=backdrop.image,
        flat=backdrop.flat,
        alpha=alpha,
        distance=distance,
        edge=edge,
        bulge=bulge,
        ground=backdrop.ground,
        depth=backdrop.depth,
        feet=torch.tensor(feet, device=device).view(-1, 1, 1, 1),
        x=x,
        y=y,
        light=torch.tensor([s.light for s in scenes], device=device).view(-1, 1, 1, 1),
        seeds=seeds,
    )
