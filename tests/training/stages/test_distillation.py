"""The distillation losses: what learns, and from which targets."""

from __future__ import annotations

import pytest
import torch

from models.training.networks.noise import embed_guidance
from models.training.networks.tokenizer import tokenize
from models.training.stages.distillation import (
    Distillation,
    GuidanceDistillation,
    rescaled_guidance,
)
from models.training.stages.student import student_from_teacher
from models.training.stages.teacher import Teacher
from models.training.stages.trajectory_distillation import (
    ConsistencyDistillation,
    TrajectoryDistillation,
)
from tests.training.batches import random_batch

KINDS = [GuidanceDistillation, TrajectoryDistillation, ConsistencyDistillation]


def make_distillation(kind: type[Distillation], *, std: float = 0.0) -> Distillation:
    """Return a loss with an untrained teacher, whose trunk's last weights have `std`."""
    torch.manual_seed(0)
    teacher = Teacher()
    torch.nn.init.normal_(teacher.trunk.exit.weight, std=std)
    student, guide = (student_from_teacher(teacher).eval() for _ in range(2))
    if issubclass(kind, TrajectoryDistillation):
        return kind(teacher, student, guide)
    return kind(teacher, student)


@pytest.mark.parametrize("w", [-0.5, 0.0, 8.0, 19.0])
def test_rescaled_guidance(w: float) -> None:
    """X_0 stays in the range of latents at every w, and w = 0 gives the conditional x_0."""
    conditional, unconditional = torch.randn(2, 2, 4, 8, 8).mul(0.9).unbind()
    guided = rescaled_guidance(conditional, unconditional, torch.full((2,), w))
    assert guided.abs().max() <= 3.2
    if w == 0:
        torch.testing.assert_close(guided, conditional.clamp(-3.2, 3.2))


@pytest.mark.parametrize("kind", KINDS)
def test_only_student_learns(kind: type[Distillation]) -> None:
    """The gradient reaches the student, and neither teacher nor average nor guide."""
    distillation = make_distillation(kind)
    distillation(random_batch()).backward()
    names = {n.split(".")[0] for n, p in distillation.named_parameters() if p.grad is not None}
    assert names == {"student"}
    has_gradient = [
        p.grad is not None and p.grad.abs().sum() > 0 for p in distillation.student.parameters()
    ]
    assert sum(has_gradient) > 0.9 * len(has_gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_trunk_batches_train_inner_levels(kind: type[Distillation]) -> None:
    """Small latents train the student's inner levels; the trunk's convolutions are frozen."""
    distillation = make_distillation(kind, std=0.01)
    distillation(random_batch(size=16, for_trunk=True)).backward()
    assert all(p.grad is None for p in distillation.teacher.parameters())
    names = {n for n, p in distillation.student.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in names} == {
        "time_embedding", "add_embedding", "down_blocks", "mid_block", "up_blocks",
    }  # fmt: skip
    assert not any(name.startswith(("down_blocks.0", "up_blocks.3")) for name in names)


@pytest.mark.parametrize("w", [0.0, 8.0])
def test_guidance_loss(monkeypatch: pytest.MonkeyPatch, w: float) -> None:
    """A new student is the unguided teacher: the loss is near 0 at w = 0 and is not at 8."""
    monkeypatch.setattr("models.training.stages.distillation.MIN_W", w)
    monkeypatch.setattr("models.training.stages.distillation.MAX_W", w)
    loss = make_distillation(GuidanceDistillation)(random_batch())
    assert loss < 0.02 if w == 0 else loss > 0.05


def test_new_student_is_the_teacher() -> None:
    """Before distillation student and teacher predict the same at every w."""
    torch.manual_seed(0)
    teacher = Teacher().eval()
    student = student_from_teacher(teacher).eval()
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([999, 19])
    text = teacher.encode_text(torch.tensor(tokenize(["a", "b"])))
    embedding = embed_guidance(torch.tensor([0.0, 19.0]))
    with torch.no_grad():
        ours = student(x, t, text, timestep_cond=embedding).sample
        theirs = teacher.unet(x, t, text).sample
    torch.testing.assert_close(ours, theirs)
