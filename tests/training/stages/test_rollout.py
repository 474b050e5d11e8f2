"""Rollouts: the requests, the student's own steps, and the targets."""

from __future__ import annotations

import pytest
import torch

from models.training.loop.precision import mixed
from models.training.stages.distillation import NoisyBatch, pseudo_huber
from models.training.stages.rollout import RolloutDistillation
from models.training.stages.rollout_requests import (
    KEEP_MAX_TIMESTEP,
    MAX_TIMESTEP,
    REQUEST_KINDS,
    RequestKind,
    Target,
    assign_rows,
    doodles,
    images,
    other_doodles,
    warped_images,
)
from models.training.stages.student import student_from_teacher
from models.training.stages.teacher import Teacher
from tests.training.batches import random_batch

ROWS = 8


@pytest.fixture(name="rollouts")
def make_rollouts() -> RolloutDistillation:
    torch.manual_seed(0)
    teacher = Teacher()
    return RolloutDistillation(teacher, student_from_teacher(teacher))


@torch.no_grad()
def frozen_predictions(rollouts: RolloutDistillation, noisy: NoisyBatch) -> torch.Tensor:
    return rollouts.predict(rollouts.frozen, noisy, random_batch(ROWS, 16))


def test_requests_begin_with_their_inputs(
    monkeypatch: pytest.MonkeyPatch, rollouts: RolloutDistillation
) -> None:
    """The input of a kind of request reaches its rows, and no other request's rows."""
    batch = random_batch(ROWS, 16)
    monkeypatch.setattr(RequestKind, "draw", lambda *_: [KEEP_MAX_TIMESTEP])
    bright = torch.full((ROWS, 4, 16, 16), 50.0)
    for marked, users in (
        (batch._replace(latents=bright), {images, warped_images}),
        (batch._replace(doodles=bright), {doodles, other_doodles}),
    ):
        noisy, _, _ = rollouts.roll_out(marked)
        for kind, rows in assign_rows(ROWS):
            is_bright = bool(noisy.x_t[rows].abs().max() > 20)
            assert is_bright == (kind.inputs in users)
            assert set(noisy.timesteps[rows].tolist()) == {KEEP_MAX_TIMESTEP}


def test_targets(monkeypatch: pytest.MonkeyPatch, rollouts: RolloutDistillation) -> None:
    """Targets are true images, the latents under the noise, or the frozen student's predictions."""
    batch = random_batch(ROWS, 16)
    for net in (rollouts.student, rollouts.ema):
        torch.nn.init.normal_(net.conv_out.weight, std=0.1)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    noisy, targets, free_rows = rollouts.roll_out(batch)
    signal, _ = rollouts.schedule.scales(noisy.timesteps)
    expected = {
        Target.TRUE_IMAGE: batch.latents,
        Target.PREVIOUS_STEP: noisy.x_t / signal,
        Target.FROZEN_STUDENT: frozen_predictions(rollouts, noisy),
    }
    is_frozen = noisy.timesteps > MAX_TIMESTEP
    for kind, rows in assign_rows(ROWS):
        torch.testing.assert_close(targets[rows], expected[kind.target][rows])
        is_frozen[rows] = kind.target is Target.FROZEN_STUDENT
    assert free_rows.tolist() == (~is_frozen).nonzero()[:, 0].tolist()


def test_rows_without_requests(
    monkeypatch: pytest.MonkeyPatch, rollouts: RolloutDistillation
) -> None:
    """Their targets are true images up to MAX_TIMESTEP, and the frozen predictions above."""
    batch = random_batch(ROWS, 16)
    monkeypatch.setattr("models.training.stages.rollout.assign_rows", lambda _count: iter(()))
    timesteps = torch.tensor([MAX_TIMESTEP, MAX_TIMESTEP + 20] * (ROWS // 2))
    monkeypatch.setattr("models.training.stages.distillation.sample_grid", lambda _: timesteps)
    torch.nn.init.normal_(rollouts.ema.conv_out.weight, std=0.1)
    noisy, targets, free_rows = rollouts.roll_out(batch)
    assert free_rows.tolist() == list(range(0, ROWS, 2))
    assert torch.equal(targets[::2], batch.latents[::2])
    torch.testing.assert_close(targets[1::2], frozen_predictions(rollouts, noisy)[1::2])


@pytest.mark.parametrize("count", [1, 3, 6, 12, 24])
def test_row_assignment(count: int) -> None:
    """Rows are assigned once and in order; twelve have every kind, and rows without a request."""
    assigned = [range(count)[rows] for _, rows in assign_rows(count)]
    taken = [row for rows in assigned for row in rows]
    assert taken == list(range(len(taken)))
    assert all(assigned)
    assert count < 12 or (len(assigned) == len(REQUEST_KINDS) and len(taken) < count)


def test_requests_end_at_any_late_step(rollouts: RolloutDistillation) -> None:
    """A request ends at each of its steps below `max_timestep`, and at no other."""
    kind = REQUEST_KINDS[0]._replace(strengths=(0.6,), steps=(4,), max_timestep=KEEP_MAX_TIMESTEP)
    requests = [kind.draw(rollouts.schedule.lcm) for _ in range(60)]
    longest = max(requests, key=len)
    assert all(request == longest[: len(request)] for request in requests)
    late = {timestep for timestep in longest if timestep <= KEEP_MAX_TIMESTEP}
    assert {request[-1] for request in requests} == late


def test_rollout_runs_the_students_steps(
    monkeypatch: pytest.MonkeyPatch, rollouts: RolloutDistillation
) -> None:
    """Each x_t is the prediction of the step before under new noise, from the doodle on."""
    batch = random_batch(ROWS, 16)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    text, ones = rollouts.teacher.encode_text(batch.tokens), torch.ones_like(batch.latents)
    start = NoisyBatch(batch.doodles, torch.zeros(ROWS).long(), text, torch.full((ROWS,), 5.0))
    with torch.no_grad():
        x_t, predicted = rollouts.run_request(start, batch, [599, 459, 299])
        latents = batch.doodles
        for timestep in (599, 459):
            t = torch.full((ROWS,), timestep)
            noisy = start._replace(x_t=rollouts.schedule.add_noise(latents, ones, t), timesteps=t)
            latents = rollouts.predict(rollouts.ema, noisy, batch)
        expected = rollouts.schedule.add_noise(latents, ones, torch.full((ROWS,), 299))
    torch.testing.assert_close(x_t, expected)
    torch.testing.assert_close(predicted, latents)


def test_loss(monkeypatch: pytest.MonkeyPatch, rollouts: RolloutDistillation) -> None:
    """The loss is the distance between the student's predictions and the targets."""
    batch = random_batch(ROWS, 16)
    rollout = rollouts.roll_out(batch)
    monkeypatch.setattr(rollouts, "roll_out", lambda _batch: rollout)
    with torch.no_grad():
        with mixed(batch.latents.device):
            predicted = rollouts.predict(rollouts.student, rollout.noisy, batch)
        torch.testing.assert_close(rollouts(batch), pseudo_huber(predicted, rollout.targets))
