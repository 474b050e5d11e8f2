"""The student's state in the work folder, and the training runs of its stages."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from models.training.loop.checkpoint import NetworkState, load_network
from models.training.loop.data_parallel import SINGLE_PROCESS, DataParallel
from models.training.loop.fit import optimizer_step
from models.training.loop.muon import Muon
from models.training.networks.architecture import build_unet
from models.training.stages.distillation import Distillation, GuidanceDistillation
from models.training.stages.latent_dataset import LatentMixture
from models.training.stages.rollout import RolloutDistillation
from models.training.stages.teacher import Teacher, load_teacher
from models.training.stages.trajectory_distillation import (
    ConsistencyDistillation,
    TrajectoryDistillation,
)

GUIDANCE, TRAJECTORY, CONSISTENCY, ROLLOUT = "guidance", "trajectory", "consistency", "rollout"
DISTILLATION_STAGES = (GUIDANCE, TRAJECTORY, CONSISTENCY, ROLLOUT)


def student_from_teacher(teacher: Teacher) -> UNet2DConditionModel:
    """Return the guided UNet with the teacher's weights, on which w has no influence yet."""
    student = build_unet(guided=True)
    student.load_state_dict(teacher.unet.state_dict(), strict=False)
    nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student


def guided_path(folder: Path) -> Path:
    """The net of guidance distillation, whose trajectories the student learns."""
    return folder / "guided.safetensors"


def student_path(folder: Path) -> Path:
    return folder / "student.safetensors"


def latest_student(folder: Path) -> Path | None:
    """Return the state of the student, or of the guided net, whichever exists."""
    paths = (student_path(folder), guided_path(folder))
    return next((path for path in paths if path.exists()), None)


def require_state(path: Path, stage: str) -> Path:
    """Return `path`. Raises SystemExit, with the stage to run first, if it does not exist."""
    if not path.exists():
        raise SystemExit(f"{path.name} does not exist: run --stage {stage} first")
    return path


def load_student(path: Path) -> UNet2DConditionModel:
    """Return the averaged student in float32 for inference."""
    return load_network(path, build_unet(guided=True))


class StudentRun:
    """The training of a student.

    Guidance distillation has a state to itself, the net whose trajectories are learned later. The
    other stages share the student's state, and begin with the guided net or the teacher.
    """

    def __init__(
        self,
        folder: Path,
        mixture: LatentMixture,
        device: torch.device,
        rate: float = 5e-4,
        group: DataParallel = SINGLE_PROCESS,
        *,
        stage: str = CONSISTENCY,
    ) -> None:
        self.name, self.mixture, self.group, self.rate = stage, mixture, group, rate
        teacher = load_teacher(folder)
        path, source = student_path(folder), latest_student(folder)
        if stage == GUIDANCE:
            path = source = guided_path(folder)
        self.state = NetworkState(path, student_from_teacher(teacher), source=source)
        self.student = self.state.net
        self.distillation = self.build_distillation(folder, teacher).to(device)
        self.state.to(device)
        for net in self.distillation.modules():
            if isinstance(net, UNet2DConditionModel):
                net.to(memory_format=torch.channels_last)
        group.seed(self.seen + 2)
        self.rng = torch.Generator().manual_seed(self.seen + 2)
        self.optimizer = self.build_optimizer()

    def build_distillation(self, folder: Path, teacher: Teacher) -> Distillation:
        """Return the loss. Raises SystemExit where the previous stage is missing."""
        if self.name == GUIDANCE:
            return GuidanceDistillation(teacher, self.student)
        if self.name == ROLLOUT:
            require_state(student_path(folder), CONSISTENCY)
            return RolloutDistillation(teacher, self.student)
        guide = load_student(require_state(guided_path(folder), GUIDANCE))
        kind = ConsistencyDistillation if self.name == CONSISTENCY else TrajectoryDistillation
        return kind(teacher, self.student, guide)

    def build_optimizer(self) -> torch.optim.Optimizer:
        return Muon(self.student)

    @property
    def seen(self) -> int:
        return self.state.seen

    def step(self, factor: float) -> Tensor:
        batch = self.mixture.draw(self.rng)
        loss: Tensor = self.distillation(batch.shard(self.group))
        self.update_student(loss, factor, len(batch.latents))
        return loss

    def update_student(
        self, output: Tensor, factor: float, rows: int, gradient: Tensor | None = None
    ) -> None:
        """Take a step down the gradient of the loss, or down `gradient` of the output."""
        optimizer_step(
            output,
            self.optimizer,
            self.student,
            self.rate * factor,
            gradient=gradient,
            group=self.group,
        )
        self.distillation.update_ema()
        self.state.count(rows)

    def save(self) -> None:
        self.state.save()
        self.mixture.refresh()
