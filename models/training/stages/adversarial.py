"""Stage 9: adversarial distillation.

Where the noise leaves something open, the losses of the earlier stages are minimal at the mean of
all possible images, and the mean of edges is soft. The student's predictions in a rollout therefore
also face a discriminator, which knows how true images look and not which one a row should be
(Sauer et al. 2023, arXiv 2311.17042; Yin et al. 2024, arXiv 2405.14867, section 4.3).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from models.training.loop.checkpoint import load_state, save_state
from models.training.loop.data_parallel import SINGLE_PROCESS, DataParallel
from models.training.loop.fit import optimizer_step
from models.training.loop.precision import mixed
from models.training.networks.discriminator import Discriminator, discriminator_loss, generator_loss
from models.training.networks.noise import per_row
from models.training.stages.distillation import pseudo_huber
from models.training.stages.latent_dataset import LatentMixture
from models.training.stages.rollout import RolloutDistillation
from models.training.stages.student import CONSISTENCY, StudentRun, require_state, student_path
from models.training.stages.teacher import Teacher

ADVERSARIAL = "adversarial"
GENERATOR_WEIGHT = 1.3  # of the generator's gradient, relative to the target's times the noise
DISCRIMINATOR_RATE = 4e-4
WARMUP_STEPS = 60  # of the discriminator, before the student learns from it
BETAS = (0.5, 0.99)  # a longer memory is misleading: the discriminator changes


def discriminator_path(folder: Path) -> Path:
    return folder / "discriminator.safetensors"


def load_discriminator(path: Path) -> tuple[Discriminator, int]:
    """Return the discriminator and its steps; a new one is equal in all processes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        discriminator = Discriminator()
    if not path.exists():
        return discriminator, 0
    state, facts = load_state(path)
    discriminator.load_state_dict(state)
    return discriminator, int(facts["steps"])


class AdversarialRun(StudentRun):
    """Discriminator and student learn alternately from the same rows."""

    distillation: RolloutDistillation

    def __init__(
        self,
        folder: Path,
        mixture: LatentMixture,
        device: torch.device,
        rate: float = 1e-4,
        group: DataParallel = SINGLE_PROCESS,
    ) -> None:
        super().__init__(folder, mixture, device, rate, group, stage=ADVERSARIAL)
        self.discriminator_path = discriminator_path(folder)
        self.discriminator, self.discriminator_steps = load_discriminator(self.discriminator_path)
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminator.to(device).parameters(), betas=BETAS, weight_decay=0.0
        )

    def build_distillation(self, folder: Path, teacher: Teacher) -> RolloutDistillation:
        require_state(student_path(folder), CONSISTENCY)
        return RolloutDistillation(teacher, self.student)

    def build_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.student.parameters(), betas=BETAS, weight_decay=0.0)

    def step(self, factor: float) -> Tensor:
        drawn = self.mixture.draw(self.rng)
        batch = drawn.shard(self.group)
        student_learns = self.discriminator_steps >= WARMUP_STEPS
        with mixed(batch.latents.device):
            noisy, targets, rows = self.distillation.roll_out(batch)
            with torch.set_grad_enabled(student_learns):
                predicted = self.distillation.predict(self.student, noisy, batch)
        output = predicted.detach()
        prompts = noisy.text[rows, -1]  # the encoder is causal: the last state has seen all tokens
        with mixed(output.device):
            loss = discriminator_loss(
                self.discriminator, output[rows], batch.latents[rows], prompts
            )
        optimizer_step(
            loss,
            self.discriminator_optimizer,
            self.discriminator,
            DISCRIMINATOR_RATE,
            group=self.group,
            max_norm=torch.inf,
        )
        self.discriminator_steps += 1
        if student_learns:
            gradient = self.output_gradient(output, targets, rows, prompts, noisy.timesteps[rows])
            self.update_student(predicted, factor, len(drawn.latents), gradient)
        else:
            self.state.count(len(drawn.latents))
        return pseudo_huber(output, targets)

    def output_gradient(
        self, output: Tensor, targets: Tensor, rows: Tensor, prompts: Tensor, timesteps: Tensor
    ) -> Tensor:
        """Return the gradient [B, 4, h, w] at the student's output, of both losses.

        The discriminator's counts in `rows`, which have these prompts and timesteps. Its norm is
        the target's, times x_t's share of noise: near the end nothing is left open, and a gradient
        that remained would add up over the steps of a request.
        """
        output = output.requires_grad_()
        (target_gradient,) = torch.autograd.grad(pseudo_huber(output, targets), output)
        with mixed(output.device):
            loss = generator_loss(self.discriminator, output[rows], prompts)
        (generator_gradient,) = torch.autograd.grad(loss, output)
        target_norm, generator_norm = (
            gradient[rows].flatten(1).norm(dim=1)
            for gradient in (target_gradient, generator_gradient)
        )
        _, sigma = self.distillation.schedule.scales(timesteps)
        weight = GENERATOR_WEIGHT * target_norm / generator_norm.clamp_min(1e-12)
        generator_gradient[rows] *= per_row(weight) * sigma
        gradient: Tensor = target_gradient + generator_gradient
        return gradient

    def save(self) -> None:
        weights = self.discriminator.state_dict()
        save_state(self.discriminator_path, weights, steps=self.discriminator_steps)
        super().save()
