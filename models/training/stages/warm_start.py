"""A warm start from the shipped folder, where the work folder has no state of an earlier run.

The work folder is temporary, and the repository is not. The autoencoder is used as it is. The
student's UNet becomes a teacher: its guidance is folded in at w = 0, where a distilled net follows
the unguided trajectory, and the teacher's loss soon turns ends of trajectories into means.
Distillation then begins with that teacher. Rollouts, adapters and an export use the student itself.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from models.training.loop.checkpoint import save_network
from models.training.networks.noise import embed_guidance
from models.training.stages.student import latest_student, student_path
from models.training.stages.teacher import Teacher, teacher_path


def warm_start(pocket: Path, work: Path) -> None:
    """Write the states of autoencoder and teacher from `pocket`, if `work` has no state."""
    if not (pocket / "model_index.json").exists() or any(work.glob("*.safetensors")):
        return
    vae = AutoencoderTiny.from_pretrained(pocket / "vae", dtype=torch.float32)
    _save(work / "autoencoder.safetensors", vae)
    _save(teacher_path(work), teacher_from_pocket(pocket))


def warm_start_student(pocket: Path, work: Path) -> None:
    """Write the shipped student's state, if `work` has no student."""
    if latest_student(work) or not (pocket / "model_index.json").exists():
        return
    _save(student_path(work), _load_unet(pocket))


@torch.no_grad()
def teacher_from_pocket(pocket: Path) -> Teacher:
    """Return a teacher that predicts what the shipped student predicts at w = 0."""
    teacher = Teacher()
    state: dict[str, Tensor] = _load_unet(pocket).state_dict()
    projection = state.pop("time_embedding.cond_proj.weight")  # [T, GUIDANCE_WIDTH]
    shift = projection @ embed_guidance(torch.zeros(1))[0]  # [T]
    state["time_embedding.linear_1.bias"] += state["time_embedding.linear_1.weight"] @ shift
    teacher.unet.load_state_dict(state)
    text = CLIPTextModel.from_pretrained(pocket / "text_encoder", dtype=torch.float32)
    teacher.text.load_state_dict(text.state_dict())
    return teacher


def _load_unet(pocket: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(pocket / "unet", dtype=torch.float32)


def _save(path: Path, net: nn.Module) -> None:
    save_network(path, net.state_dict(), net.state_dict(), seen=0)
