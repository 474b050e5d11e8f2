"""Stage 5: what a student learns of its teacher, in three lessons.

**Guidance**: what two forwards of the teacher say of w = guidance - 1, in one (Meng et al. 2023,
arXiv 2210.03142, stage one). w is drawn from [-0.5, 19], the whole range of the API.

**Endings**: where a trajectory of that guided net ends, from any point of it. The net is asked for
all of the way, in strides of DDIM (as of noise alone in Luhman and Luhman 2021, arXiv 2101.02388).
Near the end the goal is the true picture, and what lies under the noise is at times a picture of
the student's own from an earlier step, as it will be when it is served (after Yin et al. 2024,
arXiv 2405.14867, section 4.4).

**Consistency**: latent consistency distillation (Luo et al. 2023, arXiv 2310.04378, algorithm 1).
The target is the student's own average one DDIM step nearer to the picture, a step of k = 20
timesteps on the grid of 50.

Consistency alone brings an ending from the picture's side of the schedule to the noise's a step of
the grid at a time, and in the steps that two cores make in an hour it did not come there; what it
is wrong by comes along. So it is the last lesson, a short one, and endings hold it: half of its
rows learn those still.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from models.training.loop.precision import mixed
from models.training.networks import noise as diffusion
from models.training.networks.architecture import (
    GUIDANCE_WIDTH,
    TRUNK_ZOOM,
    Trunk,
    build_unet,
    predict,
)
from models.training.networks.tokenizer import tokenize
from models.training.stages.latent_dataset import Sample
from models.training.stages.teacher import Teacher

MIN_W, MAX_W = -0.5, 19.0
RESCALE = 0.8  # how much of guidance's gain in contrast is taken back (arXiv 2305.08891, 3.4)
LATENT_BOUND = 3.2  # no true latent lies outside
HUBER_C = 1e-3
TARGET_DECAY = 0.8  # what is learned at one step of the grid reaches the next in five steps
LEAP = 5  # steps of the grid in a stride of DDIM: the teacher draws as well in ten as in fifty
LATE = 299  # the last timestep of which the goal is the true picture
OWN_SHARE = 0.5  # of those late rows that lie over a picture of the student's own
HELD_SHARE = 0.5  # of the rows above LATE that learn an ending while others learn consistency
OWN_GAPS = (6, 14)  # steps of the grid between that picture's noise and this, from and below


def guided(conditional: Tensor, unconditional: Tensor, w: Tensor) -> Tensor:
    """Return x_0 [B, 4, h, w] under plain classifier-free guidance of w [B]."""
    return conditional + diffusion.rows(w) * (conditional - unconditional)


def guided_denoised(conditional: Tensor, unconditional: Tensor, w: Tensor) -> Tensor:
    """Return the guided x_0 [B, 4, h, w], its contrast held back, inside the latents' range.

    Guidance of a small teacher overshoots: by w = 10 its pictures are all saturated. So the
    guided x_0 is scaled towards the conditional one's standard deviation, by RESCALE.
    """
    x_0 = guided(conditional, unconditional, w)
    gain = conditional.std((1, 2, 3), keepdim=True) / x_0.std((1, 2, 3), keepdim=True)
    x_0 = x_0 * (1 - RESCALE + RESCALE * gain.clamp_max(1))
    return x_0.clamp(-LATENT_BOUND, LATENT_BOUND)


class Asked(NamedTuple):
    """What a consistency function is asked of, a row each."""

    x_t: Tensor  # [B, 4, h, w]
    timesteps: Tensor  # [B]
    text: Tensor  # [B, L, D]
    w: Tensor  # [B], guidance - 1

    def of(self, index: Tensor | slice) -> Asked:
        """Return the rows at `index`."""
        return Asked(*(part[index] for part in self))


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


def draw_w(count: int, device: torch.device) -> Tensor:
    """Return w [B] over the API's whole range, more densely where it is mostly asked for."""
    return torch.rand(count, device=device).square() * (MAX_W - MIN_W) + MIN_W


class Lesson(nn.Module):
    """A teacher, a student and the distance between what it says and what it should: `goal`."""

    powers: Tensor  # [1000]
    empty: Tensor  # [1, 77]

    def __init__(self, teacher: Teacher, student: UNet2DConditionModel) -> None:
        super().__init__()
        self.teacher = teacher.eval().requires_grad_(False)  # noqa: FBT003 - torch's signature
        self.student = student
        self.target = build_unet(guided=True)
        self.target.load_state_dict(student.state_dict())
        self.target.eval().requires_grad_(False)  # noqa: FBT003 - torch's signature
        self.register_buffer("powers", diffusion.alphas_cumprod(torch.device("cpu")))
        self.register_buffer("empty", torch.tensor(tokenize([""])))

    def goal(self, asked: Asked, sample: Sample) -> Tensor:
        """Return x_0 [B, 4, h, w] that the student should say."""
        raise NotImplementedError

    def ask(self, sample: Sample) -> Asked:
        """Return a point of a trajectory for each row of a batch."""
        timesteps = diffusion.draw_grid(diffusion.latest_of(sample.posed))
        visible = diffusion.shown(sample.latents, sample.doodles, sample.posed, timesteps)
        x_t = self.noised(visible, sample, timesteps)
        w = draw_w(len(x_t), x_t.device)
        return Asked(x_t, timesteps, self.teacher.read(sample.tokens), w)

    def noised(self, pictures: Tensor, sample: Sample, timesteps: Tensor) -> Tensor:
        """Return x_t [B, 4, h, w] of pictures under as much noise as their size stands for."""
        noise = torch.randn_like(pictures) / (TRUNK_ZOOM if sample.for_trunk else 1)
        return diffusion.noised(pictures, noise, self.powers, timesteps)

    def trunk_for(self, sample: Sample) -> Trunk | None:
        """Return the teacher's trunk for small pictures.

        From them the inner levels alone learn, between the doors that the trunk has come to: what
        a picture shows is theirs, at a third of the price.
        """
        return self.teacher.trunk if sample.for_trunk else None

    def forward(self, sample: Sample) -> Tensor:
        """Return the pseudo-Huber distance between what the student says and what it should."""
        with mixed(sample.latents.device):
            asked = self.ask(sample)
            goal = self.goal(asked, sample)
            guess = consistency(self.student, asked, self.powers, self.trunk_for(sample))
        return huber(guess, goal)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the target towards the student."""
        pairs = zip(self.target.parameters(), self.student.parameters(), strict=True)
        for target, student in pairs:
            target.lerp_(student, 1 - TARGET_DECAY)


class Guidance(Lesson):
    """The first lesson: what the teacher says of a prompt, and not of none, at every w."""

    @torch.no_grad()
    def goal(self, asked: Asked, sample: Sample) -> Tensor:
        x_t, timesteps, text, w = asked
        blank = self.teacher.read(self.empty[:, : text.shape[1]]).expand(len(x_t), -1, -1)
        inputs = torch.cat((x_t, x_t)), timesteps.repeat(2), torch.cat((text, blank))
        both = predict(self.teacher.unet, *inputs, trunk=self.trunk_for(sample)).float()
        with_text, without = (
            diffusion.denoised(x_t, v, self.powers, timesteps) for v in both.chunk(2)
        )
        return guided_denoised(with_text, without, w)


class Endings(Lesson):
    """The second lesson: where the trajectories of a guided net end, and how pictures do."""

    def __init__(
        self, teacher: Teacher, student: UNet2DConditionModel, guide: UNet2DConditionModel
    ) -> None:
        super().__init__(teacher, student)
        self.guide = guide.eval().requires_grad_(False)  # noqa: FBT003 - torch's signature

    @torch.no_grad()
    def ask(self, sample: Sample) -> Asked:
        asked = super().ask(sample)
        coin = torch.rand(len(asked.x_t), device=asked.x_t.device) < OWN_SHARE
        index = (coin & (asked.timesteps <= LATE)).nonzero()[:, 0]
        if len(index):
            asked.x_t[index] = self.own(asked, sample, index)
        return asked

    def own(self, asked: Asked, sample: Sample, index: Tensor) -> Tensor:
        """Return x_t of rows `index`, over what the student makes of their doodles a step before.

        How far off that step is varies with the strength and the number of steps.
        """
        _, timesteps, text, w = asked.of(index)
        gaps = torch.randint(*OWN_GAPS, timesteps.shape, device=timesteps.device)
        before = timesteps + gaps * diffusion.STRIDE
        x_before = self.noised(sample.doodles[index], sample, before)
        earlier = Asked(x_before, before, text, w)
        made = consistency(self.target, earlier, self.powers, self.trunk_for(sample))
        return self.noised(made, sample, timesteps)

    @torch.no_grad()
    def goal(self, asked: Asked, sample: Sample) -> Tensor:
        goal = sample.latents.clone()
        index = (asked.timesteps > LATE).nonzero()[:, 0]
        if len(index):
            goal[index] = self.early_goal(asked.of(index), self.trunk_for(sample))
        return goal

    def early_goal(self, asked: Asked, trunk: Trunk | None) -> Tensor:
        """Return the goal [B, 4, h, w] of rows above LATE."""
        return self.end(asked, trunk)

    def end(self, asked: Asked, trunk: Trunk | None) -> Tensor:
        """Return where the guide's trajectories through `asked` end [B, 4, h, w]."""
        ends = asked.x_t.clone()
        index = torch.arange(len(ends), device=ends.device)
        while len(index):
            x_0 = consistency(self.guide, asked, self.powers, trunk)
            then = asked.timesteps - LEAP * diffusion.STRIDE
            x = diffusion.ddim_step(asked.x_t, x_0, self.powers, asked.timesteps, then)
            ends[index] = x
            going = then >= 0
            index = index[going]
            asked = asked._replace(x_t=x, timesteps=then).of(going)
        return ends


class Consistency(Endings):
    """The last lesson: to say the same all along a trajectory of the guide, which ends hold."""

    def early_goal(self, asked: Asked, trunk: Trunk | None) -> Tensor:
        goal = asked.x_t.clone()
        is_held = torch.rand(len(goal), device=goal.device) < HELD_SHARE
        for chosen, goal_of in ((is_held, self.end), (~is_held, self.nearer)):
            if chosen.any():
                goal[chosen] = goal_of(asked.of(chosen), trunk)
        return goal

    def nearer(self, asked: Asked, trunk: Trunk | None) -> Tensor:
        """Return what the target says one step of the grid nearer to the picture."""
        x_0 = consistency(self.guide, asked, self.powers, trunk)
        then = asked.timesteps - diffusion.STRIDE
        x = diffusion.ddim_step(asked.x_t, x_0, self.powers, asked.timesteps, then)
        return consistency(self.target, asked._replace(x_t=x, timesteps=then), self.powers, trunk)
