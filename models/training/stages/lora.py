"""Stage 6: a LoRA for each of two styles, on the finished student.

The student learned fourteen styles at once. An adapter has one alone to attend to: from what lies
under the noise to a true render of the scene in its style. It is trained on the picture itself and
not on a teacher's, so that it goes on where distillation ended.

What lies under the noise is that very picture, or what the student made of it under more noise, and
never a doodle. For where strokes are still open, the likeliest picture has none: an adapter that
saw doodles, or learned from the noise's end of the schedule on, took the hatches out of sketches. A
picture that the student has softened still tells where its strokes were, and making them sharp
again is what a style's adapter is for. It is the adapted student who softens it, as in the steps
of a request (after arXiv 2405.14867, section 4.4): an adapter that made up for the bare one alone
did so at each step anew, and things grew fat. Under more noise it learns to leave the student as it
is.

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

from models.training.loop.checkpoint import Budget, save_state
from models.training.loop.fit import fit
from models.training.loop.precision import mixed
from models.training.networks import noise as diffusion
from models.training.stages.autoencoder import load_autoencoder
from models.training.stages.distillation import OWN_GAPS, Asked, consistency, huber
from models.training.stages.latent_dataset import Shape, make_chunk, sample_of
from models.training.stages.student import latest_student, load_student
from models.training.stages.teacher import load_teacher

LORA_STYLES = ("SKETCH_BW", "FANTASY_ART")
RANK = 8
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "time_emb_proj"]
SHAPE: Shape = (512, 512)  # strokes and grain have the size that is served,
WINDOW = 32  # and of the 64 x 64 latents a square of so many is learned from at a time
SCENES = 32
BATCH = 12
EARLY = 4  # of these rows, whose timesteps are later
LATEST = 459  # timestep: what is shown stands by then, strokes and colours are still to come
OWN_SHARE = 0.6  # of the other rows that lie over a picture that the student has softened
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
        with mixed(self.sample.latents.device):
            pairs = (self.early(index[:EARLY]), self.late(index[EARLY:]))
            asked = Asked(*(torch.cat(parts) for parts in zip(*(a for a, _ in pairs), strict=True)))
            guess = consistency(self.student, asked, self.powers)
        return huber(guess, torch.cat([goal for _, goal in pairs]))

    def early(self, index: Tensor) -> tuple[Asked, Tensor]:
        """Return what is asked of rows `index` under much noise, and what should be said."""
        latents, doodles = self.window(index)
        span = torch.full((len(index),), diffusion.STEPS - LATEST - 2, device=latents.device)
        timesteps = LATEST + 1 + diffusion.draw_grid(span)
        visible = diffusion.shown(latents, doodles, self.sample.posed[index], timesteps)
        asked = self.asked(visible, timesteps, index)
        return asked, self.bare(asked)

    def late(self, index: Tensor) -> tuple[Asked, Tensor]:
        """Return what is asked of rows `index` up to LATEST, and what should be said."""
        latents, _ = self.window(index)
        timesteps = diffusion.draw_grid(torch.full((len(index),), LATEST, device=latents.device))
        gaps = torch.randint(*OWN_GAPS, timesteps.shape, device=latents.device)
        before = self.asked(latents, timesteps + gaps * diffusion.STRIDE, index)
        with torch.no_grad():
            softened = consistency(self.student, before, self.powers)
        is_own = torch.rand(len(index), device=latents.device) < OWN_SHARE
        visible = torch.where(diffusion.rows(is_own), softened, latents)
        return self.asked(visible, timesteps, index), latents

    def asked(self, pictures: Tensor, timesteps: Tensor, index: Tensor) -> Asked:
        """Return pictures of rows `index` under noise, each with its prompt and some guidance."""
        x_t = diffusion.noised(pictures, torch.randn_like(pictures), self.powers, timesteps)
        w = torch.rand(len(pictures), device=pictures.device) * MAX_W
        return Asked(x_t, timesteps, self.text[index], w)

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


def train_loras(
    folder: Path, *, device: torch.device, minutes: float, rate: float = 1.2e-3
) -> None:
    """Train the adapter of each style for its share of `minutes`."""
    for style in LORA_STYLES:
        run = LoraRun(folder, style, device, rate)
        fit(run, Budget(minutes / len(LORA_STYLES), warmup_steps=20, decay=0.5), save_every=100)
