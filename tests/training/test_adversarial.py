"""The adversarial lesson: what is asked, what is held, and who pulls at the student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.training import diffusion
from models.training.adversarial import (
    ALONE_STEPS,
    LATEST,
    OF_DOODLES,
    PULL,
    REACH,
    Adversarial,
    AdversarialRun,
)
from models.training.autoencoder import build_autoencoder
from models.training.bank import Bank, Sample, fill_bank
from models.training.checkpoint import Budget, prefixed, save_state
from models.training.critic import SPEAKING, Critic, disapproval, mistakes
from models.training.distill import Asked, consistency, huber
from models.training.nets import TEXT_WIDTH
from models.training.student import student_from_teacher
from models.training.teacher import Mixture, Teacher
from models.training.team import Team
from models.training.tokens import tokenize

CPU = torch.device("cpu")
ROWS = 8


def _sample() -> Sample:
    tokens = torch.tensor(tokenize(["a red heart", "a blue boat"] * (ROWS // 2)))
    latents, doodles = torch.randn(2, ROWS, 4, 16, 16).mul(0.5).unbind()
    return Sample(latents, doodles, tokens, torch.rand(ROWS, 1, 16, 16), torch.ones(ROWS).bool())


def _lesson() -> Adversarial:
    torch.manual_seed(0)
    teacher = Teacher()
    return Adversarial(teacher, student_from_teacher(teacher))


def test_rows_stand_in_requests_of_a_doodle_of_a_picture_and_of_nothing() -> None:
    """The first never see the true picture, the second the doodle, the third either of them."""
    lesson, groups = _lesson(), (slice(0, 2), slice(2, 4), slice(4, 6))
    far, sample = torch.full((ROWS, 4, 16, 16), 50.0), _sample()
    for hidden, blind in (
        (sample._replace(latents=far), (0, 2)),
        (sample._replace(doodles=far), (1, 2)),
    ):
        asked, _ = lesson.rehearse(hidden)
        assert all(asked.x_t[groups[group]].abs().max() < 20 for group in blind)
        for rows, latest in zip(groups, (LATEST, LATEST, REACH), strict=True):
            assert len(set(asked.timesteps[rows].tolist())) == 1
            assert asked.timesteps[rows][0] <= latest


def test_what_was_made_of_nothing_is_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its goal is the picture under its noise; every other row's is the true one."""
    lesson, sample = _lesson(), _sample()
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    asked, wanted = lesson.rehearse(sample)
    scale = lesson.powers[asked.timesteps].sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(asked.x_t[4:6], scale[4:6] * wanted.latents[4:6])
    assert torch.equal(wanted.latents[:4], sample.latents[:4])
    assert torch.equal(wanted.latents[6:], sample.latents[6:])


def test_a_small_batch_is_rehearsed_as_far_as_it_goes() -> None:
    """Of two rows the one begins with a doodle, the other with a picture."""
    few = _sample().share(Team(rank=0, size=ROWS // 2))
    asked, wanted = _lesson().rehearse(few)
    assert asked.timesteps.max() <= LATEST
    assert torch.equal(wanted.latents, few.latents)


def test_a_request_is_cut_off_at_a_late_step() -> None:
    """Every late step of those that diffusers would take comes up as the last one, and no other."""
    lesson = _lesson()
    requests = OF_DOODLES._replace(strengths=(0.6,), steps=(4,))
    drawn = [requests.draw(lesson.schedule) for _ in range(60)]
    whole = max(drawn, key=len)
    assert all(one == whole[: len(one)] for one in drawn)
    assert {one[-1] for one in drawn} == {timestep for timestep in whole if timestep <= LATEST}


def test_a_rehearsal_is_the_steps_that_the_student_would_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last x_t is the noised picture of the step before, and so on, back to the doodle."""
    lesson, sample = _lesson(), _sample()
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    x_t, text = sample.latents, lesson.teacher.read(sample.tokens)
    asked = Asked(x_t, torch.zeros(ROWS).long(), text, torch.full((ROWS,), 5.0))
    with torch.no_grad():
        started = asked._replace(x_t=sample.doodles)
        reached, made = lesson.rehearsed(started, sample, [599, 459, 299])
        pictures = sample.doodles
        for timestep in (599, 459):
            t = torch.full((ROWS,), timestep)
            noised = diffusion.noised(pictures, torch.ones_like(x_t), lesson.powers, t)
            step = asked._replace(x_t=noised, timesteps=t)
            pictures = consistency(lesson.target, step, lesson.powers)
        t = torch.full((ROWS,), 299)
        wanted = diffusion.noised(pictures, torch.ones_like(x_t), lesson.powers, t)
    torch.testing.assert_close(reached, wanted)
    torch.testing.assert_close(made, pictures)


def test_above_the_late_rows_a_student_is_held_to_what_it_said() -> None:
    """A student that has changed since is told what it was; late rows, the true picture."""
    lesson, sample = _lesson(), _sample()
    timesteps = torch.tensor([LATEST, LATEST + 20] * (ROWS // 2))
    text = lesson.teacher.read(sample.tokens)
    asked = Asked(torch.randn(ROWS, 4, 16, 16), timesteps, text, torch.zeros(ROWS))
    with torch.no_grad():
        said = consistency(lesson.student, asked, lesson.powers)
        for net in (lesson.student, lesson.target):
            torch.nn.init.normal_(net.conv_out.weight, std=0.1)
        goal = lesson.goal(asked, sample)
    torch.testing.assert_close(goal[1::2], said[1::2])
    assert torch.equal(goal[::2], sample.latents[::2])


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
    run.steps = ALONE_STEPS
    assert torch.isfinite(run.step(1.0))
    assert not torch.equal(weight, before)


def test_the_critic_pulls_where_something_is_open_and_something_to_be_seen(tmp_path: Path) -> None:
    """Of the goal's pull, by x_t's shares of picture and of noise; what it is not shown, not."""
    run = _run(tmp_path)
    guess, goal = torch.randn(2, 4, 4, 16, 16).unbind()
    shown, prompts = torch.tensor([0, 2]), torch.randn(2, TEXT_WIDTH)
    timesteps = torch.tensor([399, 59])
    leaf = guess.clone().requires_grad_()
    (alone,) = torch.autograd.grad(huber(leaf, goal), leaf)
    pull = run.pulls(guess.clone(), goal, shown, prompts, timesteps) - alone
    assert pull[[1, 3]].abs().max() == 0
    powers = run.lesson.powers[timesteps]
    shares = PULL * powers.sqrt() * (1 - powers).sqrt()
    assert shares[1] < shares[0] / 2
    wanted = shares * alone[shown].flatten(1).norm(dim=1)
    torch.testing.assert_close(pull[shown].flatten(1).norm(dim=1), wanted, rtol=1e-3, atol=0)


def test_without_a_student_there_is_nothing_to_finish(tmp_path: Path) -> None:
    """It ends in a sentence that tells what to run first."""
    _run(tmp_path)
    (tmp_path / "student.safetensors").unlink()
    mixture = Mixture([Bank(tmp_path, (64, 64), CPU)], [1.0], 2)
    with pytest.raises(SystemExit, match="--stage student first"):
        AdversarialRun(tmp_path, mixture, CPU)
