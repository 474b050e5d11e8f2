"""Training goes on from the shipped folder where no state of an earlier run is left.

The work folder outlives no machine, the repository does. The autoencoder is taken up whole. The
student's UNet becomes a teacher again: its guidance is folded in at w = 0, where a distilled net
follows the unguided trajectory, and the teacher's own loss soon makes a mean of what was an end.
Distillation then begins from that teacher; rehearsals, adapters and an export take the student as
it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from models.training.loop.checkpoint import prefixed, save_state
from models.training.networks import noise as diffusion
from models.training.networks.architecture import GUIDANCE_WIDTH
from models.training.stages.student import STUDENT, latest_student
from models.training.stages.teacher import Teacher


def inherit(pocket: Path, work: Path) -> None:
    """Write the states that `work` lacks from the networks in `pocket`, if there are any."""
    if not (pocket / "model_index.json").exists() or any(work.glob("*.safetensors")):
        return
    vae = AutoencoderTiny.from_pretrained(pocket / "vae", dtype=torch.float32)
    _save(work / "autoencoder.safetensors", vae)
    _save(work / "teacher.safetensors", teacher_from_pocket(pocket))


def inherit_student(pocket: Path, work: Path) -> None:
    """Write the shipped student as the state of one, where `work` has none to go on with."""
    if latest_student(work) or not (pocket / "model_index.json").exists():
        return
    _save(
        work / f"{STUDENT}.safetensors",
        UNet2DConditionModel.from_pretrained(pocket / "unet", dtype=torch.float32),
    )


@torch.no_grad()
def teacher_from_pocket(pocket: Path) -> Teacher:
    """Return a teacher that says what the shipped student says at w = 0."""
    student = UNet2DConditionModel.from_pretrained(pocket / "unet", dtype=torch.float32)
    teacher = Teacher()
    state: dict[str, Tensor] = student.state_dict()
    projection = state.pop("time_embedding.cond_proj.weight")  # [T, GUIDANCE_WIDTH]
    shift = projection @ diffusion.guidance_embedding(torch.zeros(1), GUIDANCE_WIDTH)[0]  # [T]
    state["time_embedding.linear_1.bias"] += state["time_embedding.linear_1.weight"] @ shift
    teacher.unet.load_state_dict(state)
    text = CLIPTextModel.from_pretrained(pocket / "text_encoder", dtype=torch.float32)
    teacher.text.load_state_dict(text.state_dict())
    return teacher


def _save(path: Path, net: nn.Module) -> None:
    state = net.state_dict()
    save_state(path, prefixed("weights.", state) | prefixed("average.", state), seen=0)
