"""Stage 2: scenes rendered, encoded and captioned once, and stored in chunks to train from.

A chunk is a safetensors file of one shape: latents [N, 4, h, w] in 16 bits, the doodles of the same
scenes, the mask of the things [N, 1, h, w] in 0..255, tokens [N, 77], and whether a scene is posed
[N]. The number of a chunk is its seed: a chunk can be made again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from tqdm import tqdm

from models.training.loop.data_parallel import DataParallel
from models.training.loop.fit import Budget
from models.training.networks.architecture import TRUNK_ZOOM
from models.training.networks.tokenizer import tokenize
from models.training.recipe import Shape, Subset
from models.training.scenes.captions import caption
from models.training.scenes.gbuffer import rasterise
from models.training.scenes.renderers import DOODLE, STYLE_RENDERERS, render
from models.training.scenes.scene import draw_scene
from models.training.stages.autoencoder import encode

STYLES_PER_SCENE = 3
DOODLE_SHARE = 0.03  # of the images
POSED_SHARE = 0.75  # of the scenes
TRAIN_SEEDS = 1_000_000  # of the data set's scenes; classifier and evaluation use other seeds


class LatentBatch(NamedTuple):
    """A batch of encoded scenes."""

    latents: Tensor  # [B, 4, h, w], float32
    doodles: Tensor  # [B, 4, h, w], the same scenes as doodles
    tokens: Tensor  # [B, 77]
    thing_mask: Tensor  # [B, 1, h, w], 0..1
    posed: Tensor  # [B], whether the scene is posed (scene.draw_scene)
    for_trunk: bool = False  # small images, which train the UNet's trunk alone

    def shard(self, group: DataParallel) -> LatentBatch:
        """Return one process's rows of a batch that all processes have drawn."""
        return LatentBatch(
            group.shard(self.latents),
            group.shard(self.doodles),
            group.shard(self.tokens),
            group.shard(self.thing_mask),
            group.shard(self.posed),
            self.for_trunk,
        )


COLUMNS = LatentBatch._fields[:-1]


def to_batch(columns: Mapping[str, Tensor]) -> LatentBatch:
    """Return rows of a chunk in the dtypes of a batch."""
    return LatentBatch(
        columns["latents"].float(),
        columns["doodles"].float(),
        columns["tokens"].long(),
        columns["thing_mask"].float() / 255,
        columns["posed"],
    )


def make_chunk(
    model: AutoencoderTiny,
    shape: Shape,
    number: int,
    *,
    scenes: int,
    device: torch.device,
    styles: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Return captioned latents at pixel `shape`: every scene in each of `styles`.

    Without `styles`, each batch of scenes has STYLES_PER_SCENE random ones.
    """
    rng = random.Random(number * 7907 + shape[0] * 31 + shape[1])  # noqa: S311
    max_pixels = 2**23 if device.type == "cuda" else 2**20
    count = max(1, min(scenes, max_pixels // (shape[0] * shape[1])))
    columns: dict[str, list[Tensor]] = {name: [] for name in COLUMNS}
    for _ in range(0, scenes, count):
        posed = [rng.random() < POSED_SHARE for _ in range(count)]
        seeds = [TRAIN_SEEDS + rng.randrange(1 << 30) for _ in range(count)]
        batch = [
            draw_scene(seed, posed=is_posed) for seed, is_posed in zip(seeds, posed, strict=True)
        ]
        planes = rasterise(batch, shape, device)
        thing_mask = (F.avg_pool2d(planes.alpha, 8) * 255).round().byte().cpu()
        doodles = encode(model, render(batch, DOODLE, shape, device)).half().cpu()
        batch_styles = list(styles)
        if not styles:
            batch_styles = rng.sample(tuple(STYLE_RENDERERS), STYLES_PER_SCENE)
            if rng.random() < DOODLE_SHARE * STYLES_PER_SCENE:
                batch_styles[0] = DOODLE
        for style in batch_styles:
            if style == DOODLE:
                latents = doodles
            else:
                latents = encode(model, STYLE_RENDERERS[style](planes)).half().cpu()
            tokens = tokenize([caption(scene, style) for scene in batch])
            columns["latents"].append(latents)
            columns["doodles"].append(doodles)
            columns["tokens"].append(torch.tensor(tokens, dtype=torch.int16))
            columns["thing_mask"].append(thing_mask)
            columns["posed"].append(torch.tensor(posed))
    return {name: torch.cat(parts) for name, parts in columns.items()}


def _chunk_folder(folder: Path, shape: Shape) -> Path:
    return folder / "latents" / f"{shape[0]}x{shape[1]}"


def build_latent_dataset(
    folder: Path, model: AutoencoderTiny, subset: Subset, device: torch.device, budget: Budget
) -> None:
    """Make the missing chunks of a subset within the budget; at least one chunk exists after."""
    target = _chunk_folder(folder, subset.shape)
    target.mkdir(parents=True, exist_ok=True)
    model = model.to(device, memory_format=torch.channels_last)
    for number in tqdm(range(subset.chunks), desc=f"latents {target.name}", mininterval=5):
        path = target / f"{number:05d}.safetensors"
        if path.exists():
            continue
        if budget.is_spent and any(target.glob("*.safetensors")):
            break
        chunk = make_chunk(model, subset.shape, number, scenes=subset.scenes, device=device)
        temporary = path.with_suffix(".tmp")
        save_file(chunk, temporary)
        temporary.replace(path)


class LatentDataset:
    """The chunks of one shape, in memory; `refresh` loads new ones."""

    def __init__(
        self, folder: Path, shape: Shape, device: torch.device, *, for_trunk: bool = False
    ) -> None:
        self.shape, self.device, self.for_trunk = shape, device, for_trunk
        self._folder = _chunk_folder(folder, shape)
        self._names: set[str] = set()
        self._columns: dict[str, Tensor] = {}
        self.refresh()

    def __len__(self) -> int:
        return len(self._columns["latents"]) if self._columns else 0

    def refresh(self) -> None:
        paths = sorted(p for p in self._folder.glob("*.safetensors") if p.name not in self._names)
        chunks = [self._columns] if self._columns else []
        chunks += [load_file(path, str(self.device)) for path in paths]
        self._names |= {path.name for path in paths}
        if paths:
            self._columns = {name: torch.cat([c[name] for c in chunks]) for name in COLUMNS}

    def draw(self, count: int, rng: torch.Generator) -> LatentBatch:
        """Return a random batch of `count` rows."""
        index = torch.randint(len(self), (count,), generator=rng).to(self.device)
        rows = {name: column[index] for name, column in self._columns.items()}
        return to_batch(rows)._replace(for_trunk=self.for_trunk)


class LatentMixture:
    """Data sets of several shapes; each step draws a batch from one of them, by weight."""

    def __init__(
        self, folder: Path, subsets: Sequence[Subset], device: torch.device, batch_size: int
    ) -> None:
        """`batch_size` is for latents of 16 x 16; larger shapes get fewer rows.

        Uses the subsets that have chunks. Raises SystemExit if none has.
        """
        pairs = [
            (LatentDataset(folder, s.shape, device, for_trunk=s.for_trunk), s.weight)
            for s in subsets
        ]
        filled = [(dataset, weight) for dataset, weight in pairs if len(dataset)]
        if not filled:
            raise SystemExit("no latents of this mixture exist: run --stage latent-dataset first")
        self.datasets = [dataset for dataset, _ in filled]
        self.weights = torch.tensor([weight for _, weight in filled])
        self.batch_size = batch_size

    def draw(self, rng: torch.Generator) -> LatentBatch:
        dataset = self.datasets[int(torch.multinomial(self.weights, 1, generator=rng))]
        height, width = dataset.shape
        cost = height * width / 128**2 * (TRUNK_ZOOM if dataset.for_trunk else 1)
        return dataset.draw(max(4, round(self.batch_size / cost)), rng)

    def refresh(self) -> None:
        for dataset in self.datasets:
            dataset.refresh()
