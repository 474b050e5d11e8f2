"""Stage 5: latent consistency distillation (Luo et al. 2023, arXiv 2310.04378, algorithm 1).

The student maps any x_t of the teacher's guided trajectory to its end. Its target is its own
average one DDIM step nearer to the picture, a step of k = 20 timesteps on the grid of 50. The
guidance is an input: w = guidance - 1 is drawn from [-0.5, 19], the whole range of the API.

Before it learns where a trajectory ends the student learns guidance: what two forwards of the
teacher say of w, in one (Meng et al. 2023, arXiv 2210.03142, stage one). Distillation alone brings
it from the picture's end of the schedule to the noise's a step of the grid at a time, and in the
steps that two cores make in an hour it did not come there: guidance 8 drew what 1 did.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from models.training import diffusion
from models.training.bank import Sample
from models.training.checkpoint import Average, Budget, load_state, part, prefixed, save_state
from models.training.loop import fit
from models.training.muon import Muon
from models.training.nets import GUIDANCE_WIDTH, TRUNK_ZOOM, Trunk, build_unet, predict
from models.training.precision import mixed
from models.training.teacher import Mixture, Teacher, load_teacher
from models.training.team import ALONE, Team
from models.training.tokens import tokenize

MIN_W, MAX_W = -0.5, 19.0
RESCALE = 0.8  # how much of guidance's gain in contrast is taken back (arXiv 2305.08891, 3.4)
LATENT_BOUND = 3.2  # no true latent lies outside
HUBER_C = 1e-3
TARGET_DECAY = 0.8  # what is learned at one step of the grid reaches the next in five steps


def student_from_teacher(teacher: Teacher) -> UNet2DConditionModel:
    """Return the guided UNet with the teacher's weights; the guidance starts without a say."""
    student = build_unet(guided=True)
    student.load_state_dict(teacher.unet.state_dict(), strict=False)
    nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student


def guided_denoised(conditional: Tensor, unconditional: Tensor, w: Tensor) -> Tensor:
    """Return the guided x_0 [B, 4, h, w], its contrast held back, inside the latents' range.

    Guidance of a small teacher overshoots: by w = 10 its pictures are all saturated. So the
    guided x_0 is scaled towards the conditional one's standard deviation, by RESCALE.
    """
    guided = conditional + diffusion.rows(w) * (conditional - unconditional)
    gain = conditional.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True)
    guided = guided * (1 - RESCALE + RESCALE * gain.clamp_max(1))
    return guided.clamp(-LATENT_BOUND, LATENT_BOUND)


class Asked(NamedTuple):
    """What a consistency function is asked of, a row each."""

    x_t: Tensor  # [B, 4, h, w]
    timesteps: Tensor  # [B]
    text: Tensor  # [B, L, D]
    w: Tensor  # [B], guidance - 1


def consistency(
    net: UNet2DConditionModel, asked: Asked, powers: Tensor, trunk: Trunk | None = None
) -> Tensor:
    """Return f(x_t, t, text, w) [B, 4, h, w]; below t = 0 it is x_t itself."""
    x_t, timesteps, text, w = asked
    steps = timesteps.clamp_min(0)
    embedding = diffusion.guidance_embedding(w, GUIDANCE_WIDTH)
    v = predict(net, x_t, steps, text, embedding, trunk=trunk).float()
    skip, out = diffusion.boundary(steps)
    f = skip * x_t + out * diffusion.denoised(x_t, v, powers, steps)
    return torch.where(diffusion.rows(timesteps < 0), x_t, f)


def huber(guess: Tensor, goal: Tensor) -> Tensor:
    """Return the pseudo-Huber distance (Song and Dhariwal 2023, arXiv 2310.14189), a mean."""
    return ((guess - goal).square() + HUBER_C**2).sqrt().sub(HUBER_C).mean()


class Distiller(nn.Module):
    """Teacher, student and target, and the loss between them; `guiding` is what comes first."""

    powers: Tensor  # [1000]
    empty: Tensor  # [1, 77]

    def __init__(
        self, teacher: Teacher, student: UNet2DConditionModel, *, guiding: bool = False
    ) -> None:
        super().__init__()
        self.guiding = guiding
        self.teacher = teacher.eval().requires_grad_(False)  # noqa: FBT003 - torch's signature
        self.student = student
        self.target = build_unet(guided=True)
        self.target.load_state_dict(student.state_dict())
        self.target.eval().requires_grad_(False)  # noqa: FBT003 - torch's signature
        self.register_buffer("powers", diffusion.alphas_cumprod(torch.device("cpu")))
        self.register_buffer("empty", torch.tensor(tokenize([""])))

    @torch.no_grad()
    def guided(self, asked: Asked, trunk: Trunk | None) -> Tensor:
        """Return the teacher's guided x_0 [B, 4, h, w]."""
        x_t, timesteps, text, w = asked
        blank = self.teacher.read(self.empty[:, : text.shape[1]]).expand(len(x_t), -1, -1)
        inputs = torch.cat((x_t, x_t)), timesteps.repeat(2), torch.cat((text, blank))
        both = predict(self.teacher.unet, *inputs, trunk=trunk).float()
        with_text, without = (
            diffusion.denoised(x_t, v, self.powers, timesteps) for v in both.chunk(2)
        )
        return guided_denoised(with_text, without, w)

    @torch.no_grad()
    def nearer(self, asked: Asked, trunk: Trunk | None) -> Tensor:
        """Return what the target says one grid step earlier on the teacher's trajectory."""
        x_0, earlier = self.guided(asked, trunk), asked.timesteps - diffusion.STRIDE
        x_earlier = diffusion.ddim_step(asked.x_t, x_0, self.powers, asked.timesteps, earlier)
        there = asked._replace(x_t=x_earlier, timesteps=earlier)
        return consistency(self.target, there, self.powers, trunk)

    def forward(self, sample: Sample) -> Tensor:
        """Return the pseudo-Huber distance between what the student says and what it should.

        From small pictures the inner levels alone learn, between the doors that the teacher's
        trunk has come to: what a picture shows is theirs, at a third of the price.
        """
        latents, doodles, tokens, _, posed, for_trunk = sample
        count, device = len(latents), latents.device
        timesteps = diffusion.draw_grid(diffusion.latest_of(posed))
        visible = diffusion.shown(latents, doodles, posed, timesteps)
        noise = torch.randn_like(latents) / (TRUNK_ZOOM if for_trunk else 1)
        x_t = diffusion.noised(visible, noise, self.powers, timesteps)
        trunk = self.teacher.trunk if for_trunk else None
        w = torch.rand(count, device=device) * (MAX_W - MIN_W) + MIN_W
        with mixed(device):
            asked = Asked(x_t, timesteps, self.teacher.read(tokens), w)
            goal = self.guided(asked, trunk) if self.guiding else self.nearer(asked, trunk)
            guess = consistency(self.student, asked, self.powers, trunk)
        return huber(guess, goal)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the target towards the student."""
        pairs = zip(self.target.parameters(), self.student.parameters(), strict=True)
        for target, student in pairs:
            target.lerp_(student, 1 - TARGET_DECAY)


def load_student(folder: Path, which: str = "average.") -> UNet2DConditionModel:
    """Return the student with its averaged (or "weights.") parameters, in float32."""
    state, _ = load_state(folder / "student.safetensors")
    student = build_unet(guided=True)
    student.load_state_dict(part(state, which))
    return student


class StudentRun:
    """The distillation: from the saved student, or from the teacher; `guiding` comes first."""

    def __init__(
        self,
        folder: Path,
        mixture: Mixture,
        device: torch.device,
        rate: float,
        team: Team = ALONE,
        *,
        guiding: bool = False,
    ) -> None:
        self.name = "guided" if guiding else "student"
        self.path = folder / "student.safetensors"
        self.mixture, self.rate, self.team, self.seen = mixture, rate, team, 0
        teacher, state = load_teacher(folder), None
        if self.path.exists():
            state, facts = load_state(self.path)
            student = load_student(folder, "weights.")
            self.seen = int(facts["seen"])
        else:
            student = student_from_teacher(teacher)
        self.distiller = Distiller(teacher, student, guiding=guiding).to(device)
        for net in (self.distiller.teacher.unet, student, self.distiller.target):
            net.to(memory_format=torch.channels_last)
        self.student = student
        self.average = Average(student, 0.998)
        if state:
            self.average.restart(part(state, "average."), 300)
        team.seed(self.seen + 2)
        self.lot = torch.Generator().manual_seed(self.seen + 2)
        self.optimizer = Muon(student)

    def step(self, factor: float) -> Tensor:
        sample = self.mixture.draw(self.lot)
        loss: Tensor = self.distiller(sample.share(self.team))
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.team.average_gradients(self.student.parameters())
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step(self.rate * factor)
        self.distiller.follow()
        self.average.update(self.student)
        self.seen += len(sample.latents)
        return loss

    def save(self) -> None:
        tensors = prefixed("weights.", self.student.state_dict())
        save_state(self.path, tensors | prefixed("average.", self.average.shadow), seen=self.seen)
        self.mixture.refresh()


def train_student(
    folder: Path,
    mixture: Mixture,
    *,
    device: torch.device,
    minutes: float,
    rate: float = 5e-4,
    decay: float = 0.3,
    team: Team = ALONE,
    guiding: bool = False,
) -> None:
    """Distil for `minutes` from the saved student, or from the teacher."""
    run = StudentRun(folder, mixture, device, rate, team, guiding=guiding)
    fit(run, Budget(minutes, warmup_steps=100, decay=decay), save_every=200, team=team)
