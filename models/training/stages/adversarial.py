"""The last lesson: pictures that a critic cannot tell from true ones.

Where the noise leaves something open, the lessons before this one are met best by a mean of all
that it could be, and the mean of edges is soft. So what the student says in a rehearsal is held
against its goal and shown to a critic, too, who knows how pictures look and not which one it should
be (adversarial distillation: Sauer et al. 2023, arXiv 2311.17042; Yin et al. 2024, arXiv
2405.14867, section 4.3).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.training.loop.checkpoint import load_state, save_state
from models.training.loop.data_parallel import ALONE, Team
from models.training.loop.precision import mixed
from models.training.networks import noise as diffusion
from models.training.networks.discriminator import Critic, disapproval, mistakes
from models.training.stages.distillation import Lesson, consistency, huber
from models.training.stages.rollout import Rehearsing
from models.training.stages.student import STUDENT, LessonRun, state_of
from models.training.stages.teacher import Mixture, Teacher

ADVERSARIAL, CRITIC = "adversarial", "critic"  # the stage, and a state that it leaves
PULL = 1.3  # of the critic, in units of the goal's and of x_t's share of noise
CRITIC_RATE = 4e-4
ALONE_STEPS = 60  # in which the critic learns alone, to have something to say
BETAS = (0.5, 0.99)  # a long memory of a critic that has changed its mind leads astray


def load_critic(path: Path) -> tuple[Critic, int]:
    """Return the critic and its steps so far; without a state, that with which a team begins."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        critic = Critic()
    if not path.exists():
        return critic, 0
    state, facts = load_state(path)
    critic.load_state_dict(state)
    return critic, int(facts["steps"])


class AdversarialRun(LessonRun):
    """The lesson in progress: critic and student learn in turn, of the same rows."""

    lesson: Rehearsing

    def __init__(
        self,
        folder: Path,
        mixture: Mixture,
        device: torch.device,
        rate: float = 1e-4,
        team: Team = ALONE,
    ) -> None:
        super().__init__(folder, ADVERSARIAL, mixture, device, team)
        self.critic_path = folder / f"{CRITIC}.safetensors"
        self.critic, self.critic_steps = load_critic(self.critic_path)
        self.rate = rate
        self.optimizer, self.critic_optimizer = (
            torch.optim.AdamW(net.parameters(), lr, betas=BETAS, weight_decay=0.0)
            for net, lr in ((self.student, rate), (self.critic.to(device), CRITIC_RATE))
        )

    def build_lesson(self, folder: Path, teacher: Teacher) -> Lesson:
        state_of(STUDENT, folder, "student to finish")
        return Rehearsing(teacher, self.student)

    def step(self, factor: float) -> Tensor:
        drawn = self.mixture.draw(self.lot)
        sample = drawn.share(self.team)
        is_heard = self.critic_steps >= ALONE_STEPS
        with mixed(sample.latents.device):
            asked, goal, shown = self.lesson.rehearse(sample)
            with torch.set_grad_enabled(is_heard):
                trunk = self.lesson.trunk_for(sample)
                guess = consistency(self.student, asked, self.lesson.powers, trunk)
        prompts = asked.text[:, -1]  # the encoder is causal: the last state has read all
        self.teach_critic(guess.detach()[shown], sample.latents[shown], prompts[shown])
        if is_heard:
            pulls = self.pulls(guess.detach(), goal, shown, prompts[shown], asked.timesteps[shown])
            self.teach_student(guess, pulls, factor)
        self.state.learned(len(drawn.latents))
        self.critic_steps += 1
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
        share of noise: near the end nothing is left open, and a pull that stays is added step by
        step.
        """
        guess = guess.requires_grad_()
        (from_goal,) = torch.autograd.grad(huber(guess, goal), guess)
        with mixed(guess.device):
            loss = disapproval(self.critic, guess[shown], prompts)
        (from_approval,) = torch.autograd.grad(loss, guess)
        of_goals, of_critic = (
            pull[shown].flatten(1).norm(dim=1) for pull in (from_goal, from_approval)
        )
        noise = (1 - self.lesson.powers[timesteps]).sqrt()
        share = PULL * noise * of_goals / of_critic.clamp_min(1e-12)
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

    def save(self) -> None:
        save_state(self.critic_path, self.critic.state_dict(), steps=self.critic_steps)
        super().save()
