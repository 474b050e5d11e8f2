"""A student's training: its state in the work folder, and a run of one of its lessons."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from models.training.loop.checkpoint import Average, load_state, part, prefixed, save_state
from models.training.loop.data_parallel import ALONE, Team
from models.training.loop.muon import Muon
from models.training.networks.architecture import build_unet
from models.training.stages.distillation import Consistency, Endings, Guidance, Lesson
from models.training.stages.rollout import Rehearsing
from models.training.stages.teacher import Mixture, Teacher, load_teacher

# The lessons' stages, in their order.
GUIDED, ENDED, STUDENT, REHEARSED = "guided", "ended", "student", "rehearsed"


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


def state_of(stage: str, folder: Path, use: str) -> Path:
    """Return the state that a lesson has left. Raises SystemExit where it has not been yet."""
    path = folder / f"{stage}.safetensors"
    if not path.exists():
        raise SystemExit(f"there is no {use}: run --stage {stage} first")
    return path


def load_student(path: Path) -> UNet2DConditionModel:
    """Return the student with its averaged parameters, in float32."""
    state, _ = load_state(path)
    student = build_unet(guided=True)
    student.load_state_dict(part(state, "average."))
    return student


class StudentState:
    """The student's parameters and their average, as they lie in the work folder.

    Guidance leaves a net of its own, which the endings are asked of; each lesson goes on from its
    own state, or from that of the one before it, or from the teacher.
    """

    def __init__(self, folder: Path, teacher: Teacher, stage: str) -> None:
        self.path = folder / f"{GUIDED if stage == GUIDED else STUDENT}.safetensors"
        self.student, self.seen = student_from_teacher(teacher), 0
        self.average = Average(self.student, 0.998)
        source = self.path if stage == GUIDED else latest_student(folder)
        if source is not None and source.exists():
            state, facts = load_state(source)
            self.student.load_state_dict(part(state, "weights."))
            self.average.restart(part(state, "average."), 300)
            self.seen = int(facts["seen"])

    def learned(self, rows: int) -> None:
        """Count a step that learned from so many rows."""
        self.average.update(self.student)
        self.seen += rows

    def save(self) -> None:
        tensors = prefixed("weights.", self.student.state_dict())
        save_state(self.path, tensors | prefixed("average.", self.average.shadow), seen=self.seen)


class LessonRun:
    """A lesson in progress; what a step of it is, its kinds tell."""

    def __init__(
        self, folder: Path, stage: str, mixture: Mixture, device: torch.device, team: Team
    ) -> None:
        self.name, self.mixture, self.team = stage, mixture, team
        teacher = load_teacher(folder)
        self.state = StudentState(folder, teacher, stage)
        self.student = self.state.student
        self.lesson = self.build_lesson(folder, teacher).to(device)
        self.state.average.to(device)
        for net in self.lesson.modules():
            if isinstance(net, UNet2DConditionModel):
                net.to(memory_format=torch.channels_last)
        team.seed(self.seen + 2)
        self.lot = torch.Generator().manual_seed(self.seen + 2)

    def build_lesson(self, folder: Path, teacher: Teacher) -> Lesson:
        """Return the lesson. Raises SystemExit where the one before it is missing."""
        raise NotImplementedError

    def step(self, factor: float) -> Tensor:
        """Learn from one batch at `factor` of the full learning rate; return the loss."""
        raise NotImplementedError

    @property
    def seen(self) -> int:
        """How many pictures it has learned from, all runs together."""
        return self.state.seen

    def save(self) -> None:
        self.state.save()
        self.mixture.refresh()


class StudentRun(LessonRun):
    """Guidance, endings, consistency or a rehearsal."""

    def __init__(
        self,
        folder: Path,
        mixture: Mixture,
        device: torch.device,
        rate: float = 5e-4,
        team: Team = ALONE,
        *,
        stage: str = STUDENT,
    ) -> None:
        super().__init__(folder, stage, mixture, device, team)
        self.rate, self.optimizer = rate, Muon(self.student)

    def build_lesson(self, folder: Path, teacher: Teacher) -> Lesson:
        if self.name == GUIDED:
            return Guidance(teacher, self.student)
        if self.name == REHEARSED:
            state_of(STUDENT, folder, "student to rehearse with")
            return Rehearsing(teacher, self.student)
        guide = state_of(GUIDED, folder, "net to follow to its ends")
        kind = Consistency if self.name == STUDENT else Endings
        return kind(teacher, self.student, load_student(guide))

    def step(self, factor: float) -> Tensor:
        sample = self.mixture.draw(self.lot)
        loss: Tensor = self.lesson(sample.share(self.team))
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.team.average_gradients(self.student.parameters())
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step(self.rate * factor)
        self.lesson.follow()
        self.state.learned(len(sample.latents))
        return loss
