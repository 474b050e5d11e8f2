"""Stage 6: a LoRA for each of two styles, on the finished student.

The student learned fourteen styles at once. An adapter has one alone to attend to: from what lies
under the noise to a true render of the scene in its style. It is trained on the picture itself and
not on a teacher's, so that it goes on where distillation ended, and under little noise alone: where
strokes are still open, the likeliest picture has none. (Over all timesteps the adapter of the
sketch in ink filled its hatching with brown, and the judge knew no picture for that style.) Under
more noise it learns to leave the student as it is, or it blots out strokes before they are drawn:
of eight sketches in ink all were judged to be ones without it and with four such rows in twelve (8
levels apart), five with two or none (10 and 15 levels).
Only linear layers are adapted: the engine compiles those for a batch in which every row has an
adapter of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from models.training import diffusion
from models.training.autoencoder import load_autoencoder
from models.training.bank import Shape, make_chunk, sample_of
from models.training.checkpoint import Budget, save_state
from models.training.distill import Asked, consistency, huber
from models.training.loop import fit
from models.training.precision import mixed
from models.training.student import latest_student, load_student
from models.training.teacher import load_teacher

LORA_STYLES = ("SKETCH_BW", "FANTASY_ART")
RANK = 8
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "time_emb_proj"]
SHAPE: Shape = (512, 512)  # strokes and grain have the size that is served,
WINDOW = 32  # and of the 64 x 64 latents a square of so many is learned from at a time
SCENES = 32
BATCH = 12
EARLY = 2  # of these rows, whose timesteps are later
LATEST = 459  # timestep: what is shown stands by then, strokes and colours are still to come
MAX_W = 9.0  # of the guidance that people ask for
PREFIX = "unet."


def lora_path(folder: Path, style: str) -> Path:
    return folder / "loras" / f"{style}.safetensors"


class LoraRun:
    """The training of one style's adapter, from its file, or from nothing."""

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
        self.name, self.path, self.rate, self.seen = (
            f"lora {style}",
            lora_path(folder, style),
            rate,
            0,
        )
        torch.manual_seed(0)
        latest = latest_student(folder)
        if latest is None:
            raise SystemExit("there is no student to adapt: run --stage guided first")
        self.student: Any = load_student(latest).to(device).requires_grad_(False)  # noqa: FBT003 - torch's own signature
        self.student.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS))
        if self.path.exists():
            kept = {k.removeprefix(PREFIX): v.float() for k, v in load_file(self.path).items()}
            set_peft_model_state_dict(self.student, kept)
        vae = load_autoencoder(folder)
        chunk = make_chunk(vae, shape, 0, scenes=scenes, device=device, styles=(style,))
        self.sample = sample_of({name: rows.to(device) for name, rows in chunk.items()})
        with torch.no_grad():
            self.text = load_teacher(folder).to(device).read(self.sample.tokens)
        self.powers = diffusion.alphas_cumprod(device)
        learning = [p for p in self.student.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=rate, weight_decay=0.0)

    def step(self, factor: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        loss = self.loss(torch.randint(len(self.text), (BATCH,)))
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.seen += BATCH
        return loss

    def loss(self, index: Tensor) -> Tensor:
        """Return how far the student's pictures of rows `index` [B] are from what they should be.

        That is the true render; of the first EARLY rows, what the student says without adapter.
        """
        latents, doodles = self.window(index)
        device = latents.device
        latest = torch.full((len(latents),), LATEST, device=device)
        timesteps = diffusion.draw_grid(latest)
        later = torch.full((EARLY,), diffusion.STEPS - LATEST - 2, device=device)
        timesteps[:EARLY] = LATEST + 1 + diffusion.draw_grid(later)
        visible = diffusion.shown(latents, doodles, self.sample.posed[index], timesteps)
        x_t = diffusion.noised(visible, torch.randn_like(latents), self.powers, timesteps)
        w = torch.rand(len(latents), device=device) * MAX_W
        with mixed(device):
            asked = Asked(x_t, timesteps, self.text[index], w)
            first = Asked(*(part[:EARLY] for part in asked))
            goal = torch.cat((self.bare(first), latents[EARLY:]))
            guess = consistency(self.student, asked, self.powers)
        return huber(guess, goal)

    @torch.no_grad()
    def bare(self, asked: Asked) -> Tensor:
        """Return what the student says without its adapter."""
        self.student.disable_adapters()
        said = consistency(self.student, asked, self.powers)
        self.student.enable_adapters()
        return said

    def window(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return a square, at a place drawn by lot, of the latents and doodles of rows `index`."""
        height, width = self.sample.latents.shape[-2:]
        top, left = (int(torch.randint(max(side - WINDOW, 0) + 1, ())) for side in (height, width))
        cut = (index, ..., slice(top, top + WINDOW), slice(left, left + WINDOW))
        return self.sample.latents[cut], self.sample.doodles[cut]

    def save(self) -> None:
        """Write the factors in diffusers' naming, in 16 bits."""
        factors = get_peft_model_state_dict(self.student)
        save_state(self.path, {PREFIX + name: value for name, value in factors.items()})


def train_loras(folder: Path, *, device: torch.device, minutes: float, rate: float = 2e-3) -> None:
    """Train the adapter of each style for its share of `minutes`."""
    for style in LORA_STYLES:
        run = LoraRun(folder, style, device, rate)
        fit(run, Budget(minutes / len(LORA_STYLES), warmup_steps=20, decay=0.5), save_every=100)
