"""The rehearsal: what is asked in the steps of requests, and what should come of it."""

from __future__ import annotations

import pytest
import torch

from models.training.loop.precision import mixed
from models.training.networks import noise as diffusion
from models.training.networks.tokenizer import tokenize
from models.training.stages.distillation import Asked, consistency, huber
from models.training.stages.latent_dataset import Sample
from models.training.stages.rollout import Rehearsing
from models.training.stages.rollout_requests import (
    KEPT_LATEST,
    REACH,
    REQUESTS,
    Goal,
    Requests,
    groups,
    of_doodles,
    of_others,
    of_pictures,
    of_warped,
)
from models.training.stages.student import student_from_teacher
from models.training.stages.teacher import Teacher

ROWS = 8


def _sample() -> Sample:
    tokens = torch.tensor(tokenize(["a red heart", "a blue boat"] * (ROWS // 2)))
    latents, doodles = torch.randn(2, ROWS, 4, 16, 16).mul(0.5).unbind()
    return Sample(latents, doodles, tokens, torch.rand(ROWS, 1, 16, 16), torch.ones(ROWS).bool())


def _lesson() -> Rehearsing:
    torch.manual_seed(0)
    teacher = Teacher()
    return Rehearsing(teacher, student_from_teacher(teacher))


def test_rows_stand_in_requests_that_begin_with_what_theirs_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What begins a request reaches its own rows, and no others that a request begins."""
    lesson, sample = _lesson(), _sample()
    monkeypatch.setattr(Requests, "draw", lambda *_: [KEPT_LATEST])
    far = torch.full((ROWS, 4, 16, 16), 50.0)
    for hidden, seeing in (
        (sample._replace(latents=far), {of_pictures, of_warped}),
        (sample._replace(doodles=far), {of_doodles, of_others}),
    ):
        asked, _, _ = lesson.rehearse(hidden)
        for requests, rows in groups(ROWS):
            is_seen = bool(asked.x_t[rows].abs().max() > 20)
            assert is_seen == (requests.begin_with in seeing)
            assert set(asked.timesteps[rows].tolist()) == {KEPT_LATEST}


def test_each_row_should_come_to_what_its_request_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The true picture, the one under its noise, or what the student said before the lesson."""
    lesson, sample = _lesson(), _sample()
    for net in (lesson.student, lesson.target):
        torch.nn.init.normal_(net.conv_out.weight, std=0.1)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    asked, goal, shown = lesson.rehearse(sample)
    with torch.no_grad():
        said = consistency(lesson.before, asked, lesson.powers)
    under = asked.x_t / lesson.powers[asked.timesteps].sqrt().view(-1, 1, 1, 1)
    wanted = {Goal.TRUE: sample.latents, Goal.KEPT: under, Goal.SAID: said}
    held = asked.timesteps > REACH
    for requests, rows in groups(ROWS):
        torch.testing.assert_close(goal[rows], wanted[requests.goal][rows])
        held[rows] = requests.goal is Goal.SAID
    assert shown.tolist() == (~held).nonzero()[:, 0].tolist()


def test_rows_that_stand_anywhere_have_a_goal_as_far_as_the_critic_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The true picture; above, they are held to what the student said before the lesson."""
    lesson, sample = _lesson(), _sample()
    monkeypatch.setattr("models.training.stages.rollout.groups", lambda _count: iter(()))
    timesteps = torch.tensor([REACH, REACH + 20] * (ROWS // 2))
    monkeypatch.setattr(diffusion, "draw_grid", lambda _latest: timesteps)
    with torch.no_grad():
        torch.nn.init.normal_(lesson.target.conv_out.weight, std=0.1)
        asked, goal, shown = lesson.rehearse(sample)
        said = consistency(lesson.before, asked, lesson.powers)
    assert shown.tolist() == list(range(0, ROWS, 2))
    assert torch.equal(goal[::2], sample.latents[::2])
    torch.testing.assert_close(goal[1::2], said[1::2])


@pytest.mark.parametrize("count", [1, 3, 6, 12, 24])
def test_a_batch_is_shared_out_in_order_as_far_as_it_goes(count: int) -> None:
    """No row is asked twice; a member of a team of two has rows of each kind, and some left."""
    shared = [range(count)[rows] for _, rows in groups(count)]
    taken = [row for rows in shared for row in rows]
    assert taken == list(range(len(taken)))
    assert all(shared)
    assert count < 12 or (len(shared) == len(REQUESTS) and len(taken) < count)


def test_a_request_is_cut_off_at_a_late_step() -> None:
    """Every late step of those that diffusers would take comes up as the last one, and no other."""
    lesson = _lesson()
    requests = REQUESTS[0]._replace(strengths=(0.6,), steps=(4,), latest=KEPT_LATEST)
    drawn = [requests.draw(lesson.schedule) for _ in range(60)]
    whole = max(drawn, key=len)
    assert all(one == whole[: len(one)] for one in drawn)
    assert {one[-1] for one in drawn} == {timestep for timestep in whole if timestep <= KEPT_LATEST}


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


def test_the_loss_is_how_far_the_student_is_from_the_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A student that has learned nothing yet is as far as its goal is from what it says."""
    lesson, sample = _lesson(), _sample()
    rehearsal = lesson.rehearse(sample)
    monkeypatch.setattr(lesson, "rehearse", lambda _sample: rehearsal)
    with torch.no_grad():
        with mixed(sample.latents.device):
            said = consistency(lesson.student, rehearsal.asked, lesson.powers)
        torch.testing.assert_close(lesson(sample), huber(said, rehearsal.goal))
