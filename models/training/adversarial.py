"""Stage 5, the last lesson: pictures that a critic cannot tell from true ones.

Where the noise leaves something open, the lessons before this one are met best by a mean of all
that it could be, and the mean of edges is soft. So the student rehearses the steps of a request,
on its own pictures, and what it says at one of them is held against its goal and shown to a critic,
who knows how pictures look and not which one it should be (adversarial distillation: Sauer et al.
2023, arXiv 2311.17042; of a request's later steps: Yin et al. 2024, arXiv 2405.14867, sections 4.3
and 4.4).

A request begins with a doodle, with a true picture, which is to stay as it is, or with nothing. The
goal is the true picture; of nothing there is none, and late steps are to keep what the one before
them made. What a picture shows is decided under more noise, and stays as it was: rows above LATEST
are held to what the student said before the lesson.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from models.lcm import LCMSchedule, timesteps
from models.training import diffusion
from models.training.bank import Sample
from models.training.critic import Critic, disapproval, mistakes
from models.training.distill import Asked, Lesson, consistency, huber
from models.training.nets import build_scheduler
from models.training.precision import mixed
from models.training.student import STUDENT, LessonRun
from models.training.teacher import Mixture, Teacher
from models.training.team import ALONE, Team

ADVERSARIAL = "adversarial"  # the stage
LATEST = 479  # timestep: the second of four steps at strength 0.6 stands at 459
REACH = 799  # timestep: the last at which the critic is heard
PULL = 1.3  # of the critic, in units of the goal's and of x_t's shares of picture and of noise
CRITIC_RATE = 4e-4
ALONE_STEPS = 60  # in which the critic learns alone, to have something to say
BETAS = (0.5, 0.99)  # a long memory of a critic that has changed its mind leads astray


def _one_of(values: tuple[float, ...]) -> float:
    """Draw by torch's lot, which members of a team have of their own."""
    return values[int(torch.randint(len(values), ()))]


class Requests(NamedTuple):
    """What is asked of the student in a rehearsal, and for which share of the rows."""

    share: float
    strengths: tuple[float, ...]
    steps: tuple[float, ...]
    latest: int = LATEST
    has_goal: bool = True  # the true picture; else what was made so far is to be kept

    def draw(self, schedule: LCMSchedule) -> list[int]:
        """Return the timesteps of one of them, up to one that is not above `latest`."""
        request = timesteps(schedule, int(_one_of(self.steps)), _one_of(self.strengths))
        ends = [step for step, timestep in enumerate(request) if timestep <= self.latest]
        return request[: int(_one_of(tuple(ends))) + 1]


# The rows that are left stand anywhere, as in the lessons before.
OF_DOODLES = Requests(0.29, (0.4, 0.5, 0.6, 0.6, 0.7, 0.8), (3, 4, 4, 4, 6, 8))
OF_PICTURES = Requests(0.29, (0.2, 0.3, 0.3, 0.4), (4, 4, 6, 8))
OF_NOTHING = Requests(0.25, (1.0,), (4, 4, 6, 8), latest=REACH, has_goal=False)


class Adversarial(Lesson):
    """What is asked in the steps of requests, and what of the student must stay."""

    def __init__(self, teacher: Teacher, student: UNet2DConditionModel) -> None:
        super().__init__(teacher, student)
        self.before = copy.deepcopy(self.target)
        self.schedule = LCMSchedule.from_config(build_scheduler().config)

    @torch.no_grad()
    def rehearse(self, sample: Sample) -> tuple[Asked, Sample]:
        """Return what is asked, and the sample with the pictures that it should come to."""
        asked, latents, begin = self.ask(sample), sample.latents.clone(), 0
        for requests, pictures in (
            (OF_DOODLES, sample.doodles),
            (OF_PICTURES, sample.latents),
            (OF_NOTHING, torch.zeros_like(latents)),
        ):
            end = min(begin + max(1, round(requests.share * len(latents))), len(latents))
            rows = torch.arange(begin, end, device=latents.device)
            if len(rows):
                request = requests.draw(self.schedule)
                started = asked.of(rows)._replace(x_t=pictures[rows])
                asked.x_t[rows], made = self.rehearsed(started, sample, request)
                asked.timesteps[rows] = request[-1]
                if not requests.has_goal:
                    latents[rows] = made
            begin = end
        return asked, sample._replace(latents=latents)

    def rehearsed(self, asked: Asked, sample: Sample, request: list[int]) -> tuple[Tensor, Tensor]:
        """Return x_t [B, 4, h, w] at a request's last timestep, and the pictures under its noise.

        The request begins with the pictures `asked.x_t`.
        """
        pictures = asked.x_t
        for timestep in request:
            now = torch.full_like(asked.timesteps, timestep)
            x_t = self.noised(pictures, sample, now)
            if timestep != request[-1]:
                step = asked._replace(x_t=x_t, timesteps=now)
                pictures = consistency(self.target, step, self.powers, self.trunk_for(sample))
        return x_t, pictures

    @torch.no_grad()
    def goal(self, asked: Asked, sample: Sample) -> Tensor:
        goal = sample.latents.clone()
        held = (asked.timesteps > LATEST).nonzero()[:, 0]
        if len(held):
            trunk = self.trunk_for(sample)
            goal[held] = consistency(self.before, asked.of(held), self.powers, trunk)
        return goal


class AdversarialRun(LessonRun):
    """The lesson in progress: critic and student learn in turn, of the same rows."""

    lesson: Adversarial

    def __init__(
        self,
        folder: Path,
        mixture: Mixture,
        device: torch.device,
        rate: float = 1e-4,
        team: Team = ALONE,
    ) -> None:
        super().__init__(folder, ADVERSARIAL, mixture, device, team)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # all of a team begin with the same critic
            self.critic = Critic().to(device)
        self.rate, self.steps = rate, 0
        self.optimizer, self.critic_optimizer = (
            torch.optim.AdamW(net.parameters(), lr, betas=BETAS, weight_decay=0.0)
            for net, lr in ((self.student, rate), (self.critic, CRITIC_RATE))
        )

    def build_lesson(self, folder: Path, teacher: Teacher) -> Lesson:
        if not (folder / f"{STUDENT}.safetensors").exists():
            raise SystemExit(f"there is no student to finish: run --stage {STUDENT} first")
        return Adversarial(teacher, self.student)

    def step(self, factor: float) -> Tensor:
        drawn = self.mixture.draw(self.lot)
        sample = drawn.share(self.team)
        is_heard = self.steps >= ALONE_STEPS
        with mixed(sample.latents.device):
            asked, wanted = self.lesson.rehearse(sample)
            goal = self.lesson.goal(asked, wanted)
            with torch.set_grad_enabled(is_heard):
                trunk = self.lesson.trunk_for(sample)
                guess = consistency(self.student, asked, self.lesson.powers, trunk)
        shown = (asked.timesteps <= REACH).nonzero()[:, 0]
        prompts = asked.text[:, -1]  # the encoder is causal: the last state has read all
        self.teach_critic(guess.detach()[shown], sample.latents[shown], prompts[shown])
        if is_heard:
            pulls = self.pulls(guess.detach(), goal, shown, prompts[shown], asked.timesteps[shown])
            self.teach_student(guess, pulls, factor)
        self.state.learned(len(drawn.latents))
        self.steps += 1
        return huber(guess.detach(), goal)

    def teach_critic(self, made: Tensor, true: Tensor, prompts: Tensor) -> None:
        """Let the critic learn to tell latents [B, 4, h, w] that were made from true ones."""
        with mixed(made.device):
            loss = mistakes(self.critic, made, true, prompts)
        self.critic_optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.team.average_gradients(self.critic.parameters())
        self.critic_optimizer.step()

    def pulls(
        self, guess: Tensor, goal: Tensor, shown: Tensor, prompts: Tensor, timesteps: Tensor
    ) -> Tensor:
        """Return the gradient [B, 4, h, w] of a guess: away from its goal, and from approval.

        The critic pulls at the rows `shown`, whose prompts and timesteps these are, each by x_t's
        share of picture times its share of noise: near the end nothing is left open, and a pull
        that stays is added step by step; near the beginning nothing is to be seen.
        """
        guess = guess.requires_grad_()
        (from_goal,) = torch.autograd.grad(huber(guess, goal), guess)
        with mixed(guess.device):
            loss = disapproval(self.critic, guess[shown], prompts)
        (from_approval,) = torch.autograd.grad(loss, guess)
        of_goals, of_critic = (
            pull[shown].flatten(1).norm(dim=1) for pull in (from_goal, from_approval)
        )
        power = self.lesson.powers[timesteps]
        share = PULL * (power * (1 - power)).sqrt() * of_goals / of_critic.clamp_min(1e-12)
        from_approval[shown] *= diffusion.rows(share)
        pulls: Tensor = from_goal + from_approval
        return pulls

    def teach_student(self, guess: Tensor, pulls: Tensor, factor: float) -> None:
        """Let the student learn by the gradient [B, 4, h, w] of its guess."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        self.optimizer.zero_grad()
        torch.autograd.backward(guess, pulls)
        self.team.average_gradients(self.student.parameters())
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.lesson.follow()
