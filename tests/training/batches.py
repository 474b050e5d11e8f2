"""Small batches, states and training runs that several tests share."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from models.training.loop.checkpoint import save_network
from models.training.loop.fit import Budget
from models.training.networks.tokenizer import tokenize
from models.training.recipe import Subset
from models.training.stages.autoencoder import build_autoencoder
from models.training.stages.latent_dataset import (
    LatentBatch,
    LatentMixture,
    build_latent_dataset,
)
from models.training.stages.student import student_from_teacher
from models.training.stages.teacher import Teacher

CPU = torch.device("cpu")
EMPTY = torch.tensor(tokenize([""]))  # [1, 77]


def random_batch(count: int = 2, size: int = 8, *, for_trunk: bool = False) -> LatentBatch:
    """Return a batch of noise, alternately captioned with a heart and a boat."""
    tokens = torch.tensor(tokenize(["a red heart", "a blue boat"] * (count // 2)))
    latents, doodles = torch.randn(2, count, 4, size, size).mul(0.5).unbind()
    thing_mask, posed = torch.rand(count, 1, size, size), torch.ones(count).bool()
    return LatentBatch(latents, doodles, tokens, thing_mask, posed, for_trunk)


def write_state(path: Path, net: nn.Module) -> None:
    save_network(path, net.state_dict(), net.state_dict(), seen=0)


def write_student(folder: Path, *, std: float = 0.0) -> Teacher:
    """Write the states of a teacher and of its student, whose last layer has weights of `std`."""
    teacher = Teacher()
    if std:
        nn.init.normal_(teacher.unet.conv_out.weight, std=std)
    write_state(folder / "teacher.safetensors", teacher)
    write_state(folder / "student.safetensors", student_from_teacher(teacher))
    return teacher


def small_mixture(folder: Path) -> LatentMixture:
    """Return a mixture of one chunk of 64 x 64, of which a batch has four rows."""
    subset = Subset((64, 64), chunks=1, scenes=4)
    build_latent_dataset(folder, build_autoencoder(), subset, CPU, Budget(1))
    return LatentMixture(folder, [subset], CPU, batch_size=2)
