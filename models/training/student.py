"""A student's training: its state in the work folder, and a run of one of its lessons."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from models.training.checkpoint import Average, Budget, load_state, part, prefixed, save_state
from models.training.distill import Consistency, Endings, Guidance, Lesson
from models.training.loop import fit
from models.training.muon import Muon
from models.training.nets import build_unet
from models.training.teacher import Mixture, Teacher, load_teacher
from models.training.team import ALONE, Team

GUIDED, ENDED, STUDENT = "guided", "ended", "student"  # the lessons' stages, in their order


def student_from_teacher(teacher: Teacher) -> UNet2DConditionModel:
    """Return the guided UNet with the teacher's weights; the guidance starts without a say."""
    student = build_unet(guided=True)
    student.load_state_dict(teacher.unet.state_dict(), strict=False)
    nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student


def latest_student(folder: Path) -> Path | None:
    """Return the state of the student that has learned most, if there is one."""
    paths = (folder / f"{name}.safetensors" for name in (STUDENT, GUIDED))
    return next((path for path in paths if path.exists()), None)


def load_student(path: Path) -> UNet2DConditionModel:
    """Return the student with its averaged parameters, in float32."""
    state, _ = load_state(path)
    student = build_unet(guided=True)
    student.load_state_dict(part(state, "average."))
    return student


def _lesson(folder: Path, stage: str, teacher: Teacher, student: UNet2DConditionModel) -> Lesson:
    """Return the lesson of a stage. Raises SystemExit where the one before it is missing."""
    if stage == GUIDED:
        return Guidance(teacher, student)
    guide = folder / f"{GUIDED}.safetensors"
    if not guide.exists():
        raise SystemExit(f"there is no net to follow to its ends: run --stage {GUIDED} first")
    kind = Consistency if stage == STUDENT else Endings
    return kind(teacher, student, load_student(guide))


class StudentRun:
    """A lesson: from its own state, or from that of the one before it, or from the teacher.

    Guidance leaves a net of its own, which the endings are asked of.
    """

    def __init__(
        self,
        folder: Path,
        mixture: Mixture,
        device: torch.device,
        rate: float,
        team: Team = ALONE,
        *,
        stage: str = STUDENT,
    ) -> None:
        self.name = stage
        self.path = folder / f"{GUIDED if stage == GUIDED else STUDENT}.safetensors"
        self.mixture, self.rate, self.team, self.seen = mixture, rate, team, 0
        teacher = load_teacher(folder)
        self.student = student_from_teacher(teacher)
        state: dict[str, Tensor] = {}
        source = self.path if stage == GUIDED else latest_student(folder)
        if source is not None and source.exists():
            state, facts = load_state(source)
            self.student.load_state_dict(part(state, "weights."))
            self.seen = int(facts["seen"])
        self.lesson = _lesson(folder, stage, teacher, self.student).to(device)
        for net in self.lesson.modules():
            if isinstance(net, UNet2DConditionModel):
                net.to(memory_format=torch.channels_last)
        self.average = Average(self.student, 0.998)
        if state:
            self.average.restart(part(state, "average."), 300)
        team.seed(self.seen + 2)
        self.lot = torch.Generator().manual_seed(self.seen + 2)
        self.optimizer = Muon(self.student)

    def step(self, factor: float) -> Tensor:
        sample = self.mixture.draw(self.lot)
        loss: Tensor = self.lesson(sample.share(self.team))
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.team.average_gradients(self.student.parameters())
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step(self.rate * factor)
        self.lesson.follow()
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
    stage: str = STUDENT,
) -> None:
    """Learn one lesson for `minutes`."""
    run = StudentRun(folder, mixture, device, rate, team, stage=stage)
    fit(run, Budget(minutes, warmup_steps=100, decay=decay), save_every=200, team=team)
