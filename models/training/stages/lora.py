"""Stage 10: a LoRA for each of two styles, on the finished student.

The student learned fourteen styles at once; an adapter learns one. Its target is the true render of
the scene in its style, not a teacher's prediction: it goes on where distillation ended.

The image under the noise is the true render, or the student's prediction of it from more noise,
and never a doodle. Where strokes are still undecided the most likely image has none: adapters that
saw doodles, or learned from the start of the schedule on, removed the hatching from sketches. A
softened prediction still shows where the strokes were, and a style's adapter is to sharpen them.
The adapted student makes the prediction, as in the steps of a request (after arXiv 2405.14867,
section 4.4): an adapter that learned to correct the bare student did so again at each step, and
things grew fat. Under more noise the adapter learns to change nothing.

Only linear layers are adapted: the engine compiles them for batches with a different adapter in
every row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from models.training.loop.checkpoint import save_state
from models.training.loop.fit import Budget, fit, optimizer_step
from models.training.loop.precision import mixed
from models.training.networks.noise import GRID_STRIDE, NUM_TIMESTEPS, NoiseSchedule, per_row
from models.training.recipe import Shape
from models.training.stages.autoencoder import load_autoencoder
from models.training.stages.corruption import corrupt, sample_grid
from models.training.stages.distillation import NoisyBatch, consistency_function, pseudo_huber
from models.training.stages.latent_dataset import make_chunk, to_batch
from models.training.stages.student import (
    GUIDANCE,
    guided_path,
    latest_student,
    load_student,
    require_state,
)
from models.training.stages.teacher import load_teacher
from models.training.stages.trajectory_distillation import OWN_GAPS

LORA_STYLES = ("SKETCH_BW", "FANTASY_ART")
RANK = 8
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "time_emb_proj"]
SHAPE: Shape = (512, 512)  # strokes and grain at the size that is served
WINDOW = 32  # latents: the side of the squares to learn from, of 64 x 64
SCENES = 32
BATCH_SIZE = 12
NOISY_ROWS = 4  # of the batch, at timesteps above MAX_TIMESTEP
MAX_TIMESTEP = 459  # content is decided by then, strokes and colours are not
OWN_SHARE = 0.6  # of the other rows that have the student's prediction under the noise
MAX_W = 9.0  # of the guidance that users ask for
PREFIX = "unet."


def lora_path(folder: Path, style: str) -> Path:
    return folder / "loras" / f"{style}.safetensors"


class LoraRun:
    """The training of one style's adapter, from its file or from nothing."""

    def __init__(
        self,
        folder: Path,
        style: str,
        device: torch.device,
        rate: float,
        shape: Shape = SHAPE,
        *,
        scenes: int = SCENES,
    ) -> None:
        self.name, self.path = f"lora {style}", lora_path(folder, style)
        self.rate, self.seen = rate, 0
        torch.manual_seed(0)
        latest = latest_student(folder) or require_state(guided_path(folder), GUIDANCE)
        self.student: Any = load_student(latest).to(device)
        self.student.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS))
        if self.path.exists():
            factors = {k.removeprefix(PREFIX): v.float() for k, v in load_file(self.path).items()}
            set_peft_model_state_dict(self.student, factors)
        vae = load_autoencoder(folder)
        chunk = make_chunk(vae, shape, 0, scenes=scenes, device=device, styles=(style,))
        self.batch = to_batch({name: rows.to(device) for name, rows in chunk.items()})
        with torch.no_grad():
            self.text = load_teacher(folder).to(device).encode_text(self.batch.tokens)
        self.schedule = NoiseSchedule().to(device)
        trainable = [p for p in self.student.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, weight_decay=0.0)

    def step(self, factor: float) -> Tensor:
        loss = self.loss(torch.randint(len(self.text), (BATCH_SIZE,)))
        optimizer_step(loss, self.optimizer, self.student, self.rate * factor)
        self.seen += BATCH_SIZE
        return loss

    def loss(self, index: Tensor) -> Tensor:
        """Return the distance between the predictions of rows `index` [B] and their targets.

        The target is the true render; in the first NOISY_ROWS it is the prediction without adapter.
        """
        with mixed(self.batch.latents.device):
            pairs = (self.noisy_rows(index[:NOISY_ROWS]), self.late_rows(index[NOISY_ROWS:]))
            columns = zip(*(noisy for noisy, _ in pairs), strict=True)
            noisy = NoisyBatch(*(torch.cat(parts) for parts in columns))
            predicted = consistency_function(self.student, noisy, self.schedule)
        return pseudo_huber(predicted, torch.cat([target for _, target in pairs]))

    def noisy_rows(self, index: Tensor) -> tuple[NoisyBatch, Tensor]:
        """Return inputs of rows `index` above MAX_TIMESTEP, and the bare student's predictions."""
        latents, doodles = self.crop(index)
        span = torch.full((len(index),), NUM_TIMESTEPS - MAX_TIMESTEP - 2, device=latents.device)
        timesteps = MAX_TIMESTEP + 1 + sample_grid(span)
        inputs = corrupt(latents, doodles, self.batch.posed[index], timesteps)
        noisy = self.add_noise(inputs, timesteps, index)
        self.student.disable_adapters()
        with torch.no_grad():
            targets = consistency_function(self.student, noisy, self.schedule)
        self.student.enable_adapters()
        return noisy, targets

    def late_rows(self, index: Tensor) -> tuple[NoisyBatch, Tensor]:
        """Return inputs of rows `index` up to MAX_TIMESTEP, and the true latents."""
        latents, _ = self.crop(index)
        timesteps = sample_grid(torch.full((len(index),), MAX_TIMESTEP, device=latents.device))
        gaps = torch.randint(*OWN_GAPS, timesteps.shape, device=latents.device)
        earlier = self.add_noise(latents, timesteps + gaps * GRID_STRIDE, index)
        with torch.no_grad():
            predicted = consistency_function(self.student, earlier, self.schedule)
        is_own = torch.rand(len(index), device=latents.device) < OWN_SHARE
        inputs = torch.where(per_row(is_own), predicted, latents)
        return self.add_noise(inputs, timesteps, index), latents

    def add_noise(self, latents: Tensor, timesteps: Tensor, index: Tensor) -> NoisyBatch:
        """Return latents of rows `index` with noise, with their prompts and random guidance."""
        x_t = self.schedule.add_noise(latents, torch.randn_like(latents), timesteps)
        w = torch.rand(len(latents), device=latents.device) * MAX_W
        return NoisyBatch(x_t, timesteps, self.text[index], w)

    def crop(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return a random square of the latents and doodles of rows `index`."""
        height, width = self.batch.latents.shape[-2:]
        top, left = (int(torch.randint(max(side - WINDOW, 0) + 1, ())) for side in (height, width))
        square = (index, ..., slice(top, top + WINDOW), slice(left, left + WINDOW))
        return self.batch.latents[square], self.batch.doodles[square]

    def save(self) -> None:
        """Write the factors in diffusers' naming, in 16 bits."""
        factors = get_peft_model_state_dict(self.student)
        save_state(self.path, {PREFIX + name: value for name, value in factors.items()})


def train_loras(
    folder: Path, *, device: torch.device, minutes: float, rate: float = 1.2e-3
) -> None:
    """Train each style's adapter for its share of `minutes`."""
    for style in LORA_STYLES:
        run = LoraRun(folder, style, device, rate)
        fit(run, Budget(minutes / len(LORA_STYLES), warmup_steps=20, decay=0.5), save_every=100)
