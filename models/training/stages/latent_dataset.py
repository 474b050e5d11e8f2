"""Stage 2: scenes rendered, encoded and captioned once, kept in chunks to train from.

A chunk is a safetensors file of one shape: latents [N, 4, h, w] in 16 bits and those of the same
scenes as doodles, where things are [N, 1, h, w] in 0..255, tokens [N, 77], whether the scene is
posed [N]. Chunks are numbered; a chunk's number is its seed, so they can be made again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from tqdm import tqdm

from models.training.loop.checkpoint import Budget
from models.training.loop.data_parallel import Team
from models.training.loop.precision import mixed
from models.training.networks.tokenizer import tokenize
from models.training.scenes.captions import caption
from models.training.scenes.gbuffer import rasterise
from models.training.scenes.renderers import DOODLE, PAINTERS, render
from models.training.scenes.scene import draw_scene

STYLES = (*PAINTERS, DOODLE)
STYLES_A_SCENE = 3  # a rasterised scene is painted in so many styles
DOODLE_SHARE = 0.03
POSED_SHARE = 0.75  # of scenes
TRAIN_SEEDS = 1_000_000  # scenes of the bank; judges and evaluation draw others
Shape = tuple[int, int]


class Sample(NamedTuple):
    """A batch from a bank."""

    latents: Tensor  # [B, 4, h, w], float32
    doodles: Tensor  # [B, 4, h, w]: the same scenes, drawn as doodles
    tokens: Tensor  # [B, 77]
    things: Tensor  # [B, 1, h, w], 0..1: where a thing is
    posed: Tensor  # [B], whether the scene is posed (world.draw_scene)
    for_trunk: bool = False  # whether they are small ones that only the UNet's trunk learns from

    def share(self, team: Team) -> Sample:
        """Return the rows of one member of a team that has drawn this batch."""
        latents, doodles, tokens, things, posed = (team.share(rows) for rows in self[:-1])
        return Sample(latents, doodles, tokens, things, posed, self.for_trunk)


COLUMNS = Sample._fields[:-1]


def sample_of(columns: Mapping[str, Tensor]) -> Sample:
    """Return rows as they lie in a chunk in the types that are learned from."""
    return Sample(
        columns["latents"].float(),
        columns["doodles"].float(),
        columns["tokens"].long(),
        columns["things"].float() / 255,
        columns["posed"],
    )


def _pick_styles(lot: random.Random) -> list[str]:
    styles = lot.sample(tuple(PAINTERS), STYLES_A_SCENE)
    if lot.random() < DOODLE_SHARE * STYLES_A_SCENE:
        styles[0] = DOODLE
    return styles


@torch.no_grad()
def encode(model: AutoencoderTiny, pictures: Tensor) -> Tensor:
    """Return latents [B, 4, h, w] in float32 of pictures [B, 3, H, W] in 0..1."""
    pictures = (pictures * 2 - 1).contiguous(memory_format=torch.channels_last)
    with mixed(pictures.device):
        latents: Tensor = model.encode(pictures).latents
    return latents.float().contiguous()


@torch.no_grad()
def decode(model: AutoencoderTiny, latents: Tensor) -> Tensor:
    """Return pictures [B, 3, H, W] in 0..1 of latents [B, 4, h, w]."""
    with mixed(latents.device):
        pictures: Tensor = model.decode(latents).sample
    return (pictures.float() / 2 + 0.5).clamp(0, 1)


def make_chunk(
    model: AutoencoderTiny,
    shape: Shape,
    number: int,
    *,
    scenes: int,
    device: torch.device,
    styles: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Return a chunk of captioned latents at pixel `shape`: every scene in each of `styles`.

    Without any, it is in STYLES_A_SCENE that are drawn by lot.
    """
    lot = random.Random(number * 7907 + shape[0] * 31 + shape[1])  # noqa: S311
    many = max(1, min(scenes, 2**20 // (shape[0] * shape[1])))
    if device.type == "cuda":
        many = max(1, min(scenes, 2**23 // (shape[0] * shape[1])))
    columns: dict[str, list[Tensor]] = {name: [] for name in COLUMNS}
    for _ in range(0, scenes, many):
        posed = [lot.random() < POSED_SHARE for _ in range(many)]
        seeds = [TRAIN_SEEDS + lot.randrange(1 << 30) for _ in range(many)]
        batch = [
            draw_scene(seed, posed=is_posed) for seed, is_posed in zip(seeds, posed, strict=True)
        ]
        plain = rasterise(batch, shape, device)
        things = (F.avg_pool2d(plain.alpha, 8) * 255).round().byte().cpu()
        doodle = encode(model, render(batch, DOODLE, shape, device)).half().cpu()
        for style in styles or _pick_styles(lot):
            drawn = style == DOODLE
            painted = doodle if drawn else encode(model, PAINTERS[style](plain)).half().cpu()
            tokens = tokenize([caption(scene, style) for scene in batch])
            columns["latents"].append(painted)
            columns["doodles"].append(doodle)
            columns["tokens"].append(torch.tensor(tokens, dtype=torch.int16))
            columns["things"].append(things)
            columns["posed"].append(torch.tensor(posed))
    return {name: torch.cat(parts) for name, parts in columns.items()}


def chunk_folder(folder: Path, shape: Shape) -> Path:
    return folder / "bank" / f"{shape[0]}x{shape[1]}"


def fill_bank(
    folder: Path,
    model: AutoencoderTiny,
    shape: Shape,
    chunks: Iterable[int],
    *,
    scenes: int,
    device: torch.device,
    until: Budget,
) -> None:
    """Make the chunks that are not there yet, while the budget lasts; one in any case."""
    where = chunk_folder(folder, shape)
    where.mkdir(parents=True, exist_ok=True)
    model = model.to(device, memory_format=torch.channels_last)
    for number in tqdm(list(chunks), desc=f"bank {shape[0]}x{shape[1]}", mininterval=5):
        path = where / f"{number:05d}.safetensors"
        if path.exists():
            continue
        if until.over and any(where.glob("*.safetensors")):
            break
        fresh = path.with_suffix(".tmp")
        save_file(make_chunk(model, shape, number, scenes=scenes, device=device), fresh)
        fresh.replace(path)


class Bank:
    """The chunks of one shape in memory; `refresh` takes up those that came since."""

    def __init__(
        self, folder: Path, shape: Shape, device: torch.device, *, for_trunk: bool = False
    ) -> None:
        self.shape, self.device, self.for_trunk = shape, device, for_trunk
        self._where = chunk_folder(folder, shape)
        self._names: set[str] = set()
        height, width = shape[0] // 8, shape[1] // 8
        self._columns = {
            "latents": torch.empty(0, 4, height, width, dtype=torch.float16),
            "doodles": torch.empty(0, 4, height, width, dtype=torch.float16),
            "tokens": torch.empty(0, 77, dtype=torch.int16),
            "things": torch.empty(0, 1, height, width, dtype=torch.uint8),
            "posed": torch.empty(0, dtype=torch.bool),
        }
        self.refresh()

    def __len__(self) -> int:
        return len(self._columns["latents"])

    def refresh(self) -> None:
        fresh = sorted(p for p in self._where.glob("*.safetensors") if p.name not in self._names)
        chunks = [load_file(path) for path in fresh]
        self._names |= {path.name for path in fresh}
        if chunks:
            for name, kept in self._columns.items():
                whole = torch.cat([kept.cpu(), *(chunk[name] for chunk in chunks)])
                self._columns[name] = whole.to(self.device)

    def draw(self, count: int, lot: torch.Generator) -> Sample:
        """Return a batch of `count`."""
        index = torch.randint(len(self), (count,), generator=lot).to(self.device)
        drawn = {name: column[index] for name, column in self._columns.items()}
        return sample_of(drawn)._replace(for_trunk=self.for_trunk)
