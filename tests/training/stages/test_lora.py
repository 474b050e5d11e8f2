"""A style's adapter: it learns, resumes, and is a LoRA that the service reads."""

from __future__ import annotations

from pathlib import Path

import torch

from models.lora.parse import read_lora
from models.training.stages.autoencoder import build_autoencoder, start_as_thumbnail
from models.training.stages.lora import RANK, LoraRun, lora_path
from models.training.stages.student import student_from_teacher
from tests.training.batches import CPU, write_state, write_student


def test_adapter(tmp_path: Path) -> None:
    """Steps lower the loss, a resumed run keeps it, and the service reads the file."""
    torch.manual_seed(0)
    autoencoder = build_autoencoder()
    start_as_thumbnail(autoencoder)  # latents of random weights hardly differ
    write_state(tmp_path / "autoencoder.safetensors", autoencoder)
    teacher = write_student(tmp_path)
    run = LoraRun(tmp_path, "SKETCH_BW", CPU, 5e-3, (64, 64), scenes=2)
    index = torch.arange(2).repeat(6)
    with torch.no_grad():
        torch.manual_seed(1)
        before = run.loss(index)
    for _ in range(90):
        run.step(1.0)
    run.save()
    resumed = LoraRun(tmp_path, "SKETCH_BW", CPU, 5e-3, (64, 64), scenes=2)
    with torch.no_grad():
        torch.manual_seed(1)
        assert resumed.loss(index) < 0.9 * before
    path = lora_path(tmp_path, "SKETCH_BW")
    lora = read_lora(path, {"unet": student_from_teacher(teacher)})
    assert all(factors.rank == RANK for factors in lora.values())
    assert path.stat().st_size < 700_000
