"""The adversarial lesson: a critic that learns, and who pulls at the student."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from models.training.loop.checkpoint import Budget, prefixed, save_state
from models.training.networks.architecture import TEXT_WIDTH
from models.training.networks.discriminator import SPEAKING, Critic, disapproval, mistakes
from models.training.stages.adversarial import ALONE_STEPS, PULL, AdversarialRun, load_critic
from models.training.stages.autoencoder import build_autoencoder
from models.training.stages.distillation import huber
from models.training.stages.latent_dataset import Bank, fill_bank
from models.training.stages.student import REHEARSED, StudentRun, student_from_teacher
from models.training.stages.teacher import Mixture, Teacher

CPU = torch.device("cpu")


def test_a_critic_learns_to_tell_and_hears_the_prompt() -> None:
    """Of smooth pictures and grainy ones, each right for its prompt, it tells which is which."""
    torch.manual_seed(0)
    critic, prompts = Critic(), torch.randn(2, TEXT_WIDTH).repeat(8, 1)
    optimizer = torch.optim.Adam(critic.parameters(), 2e-3)
    ground = torch.randn(16, 4, 4, 4)
    smooth = torch.nn.functional.interpolate(ground, (16, 16), mode="bilinear")
    grainy = smooth + 0.5 * torch.randn_like(smooth)
    is_smooth = torch.arange(16).view(-1, 1, 1, 1) % 2 == 0
    true, made = torch.where(is_smooth, smooth, grainy), torch.where(is_smooth, grainy, smooth)
    assert len(critic(true, prompts)) == len(SPEAKING)
    assert mistakes(critic, made, true, prompts).item() == pytest.approx(2, abs=0.5)
    for _ in range(150):
        optimizer.zero_grad()
        torch.autograd.backward(mistakes(critic, made, true, prompts))
        optimizer.step()
    with torch.no_grad():
        assert mistakes(critic, made, true, prompts) < 1
        assert disapproval(critic, made, prompts) > disapproval(critic, true, prompts) + 0.5


def _run(folder: Path) -> AdversarialRun:
    torch.manual_seed(0)
    teacher = Teacher()
    torch.nn.init.normal_(teacher.unet.conv_out.weight, std=0.02)
    for name, net in (("teacher", teacher), ("student", student_from_teacher(teacher))):
        state = net.state_dict()
        both = prefixed("weights.", state) | prefixed("average.", state)
        save_state(folder / f"{name}.safetensors", both, seen=0)
    budget = Budget(1)
    fill_bank(folder, build_autoencoder(), (64, 64), range(1), scenes=4, device=CPU, until=budget)
    return AdversarialRun(folder, Mixture([Bank(folder, (64, 64), CPU)], [1.0], 2), CPU, 1e-3)


def test_a_critic_learns_alone_before_it_is_heard(tmp_path: Path) -> None:
    """While it does, the student stays as it was, and moves with the first step after."""
    run = _run(tmp_path)
    weight = run.student.conv_out.weight
    critic, before = [p.clone() for p in run.critic.parameters()], weight.detach().clone()
    run.step(1.0)
    assert torch.equal(weight, before)
    assert any(not torch.equal(a, b) for a, b in zip(critic, run.critic.parameters(), strict=True))
    run.critic_steps = ALONE_STEPS
    assert torch.isfinite(run.step(1.0))
    assert not torch.equal(weight, before)


def test_a_critic_goes_on_from_where_it_was(tmp_path: Path) -> None:
    """What it has learned lies in the work folder, and for how long; a new one is always alike."""
    run = _run(tmp_path)
    first, steps = load_critic(tmp_path / "critic.safetensors")
    assert steps == 0
    assert_same(run.critic, first)
    run.step(1.0)
    run.save()
    again = AdversarialRun(tmp_path, run.mixture, CPU)
    assert again.critic_steps == 1
    assert_same(run.critic, again.critic)


def assert_same(one: Critic, other: Critic) -> None:
    """They have the same parameters, as far as sixteen bits tell."""
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_the_critic_pulls_where_something_is_open(tmp_path: Path) -> None:
    """Of the goal's pull, by x_t's share of noise; what it is not shown, not."""
    run = _run(tmp_path)
    guess, goal = torch.randn(2, 4, 4, 16, 16).unbind()
    shown, prompts = torch.tensor([0, 2]), torch.randn(2, TEXT_WIDTH)
    timesteps = torch.tensor([399, 59])
    leaf = guess.clone().requires_grad_()
    (alone,) = torch.autograd.grad(huber(leaf, goal), leaf)
    pull = run.pulls(guess.clone(), goal, shown, prompts, timesteps) - alone
    assert pull[[1, 3]].abs().max() == 0
    powers = run.lesson.powers[timesteps]
    shares = PULL * (1 - powers).sqrt()
    assert shares[1] < shares[0] / 2
    wanted = shares * alone[shown].flatten(1).norm(dim=1)
    torch.testing.assert_close(pull[shown].flatten(1).norm(dim=1), wanted, rtol=1e-3, atol=0)


def test_without_a_student_there_is_nothing_to_finish(tmp_path: Path) -> None:
    """It ends in a sentence that tells what to run first, and so does the rehearsal."""
    _run(tmp_path)
    (tmp_path / "student.safetensors").unlink()
    mixture = Mixture([Bank(tmp_path, (64, 64), CPU)], [1.0], 2)
    for begin in (AdversarialRun, partial(StudentRun, stage=REHEARSED)):
        with pytest.raises(SystemExit, match="--stage student first"):
            begin(tmp_path, mixture, CPU)
