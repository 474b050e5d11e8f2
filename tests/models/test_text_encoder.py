"""Prompts embedded by captured text encoders: each keeps what it was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.loader import CheckpointFiles, load_pipeline
from tests.models.runtime.test_forward import RecordingCapturer
from tests.support.checkpoints import sdxl_unet, write_checkpoint, write_sdxl_checkpoint


def of_sd15(folder: Path) -> CheckpointFiles:
    return CheckpointFiles(write_checkpoint(folder / "checkpoint"))


def of_sdxl(folder: Path) -> CheckpointFiles:
    sdxl_unet(time_cond_proj_dim=32).save_pretrained(folder / "unet")
    return CheckpointFiles(write_sdxl_checkpoint(folder / "checkpoint"), unet=folder / "unet")


@pytest.mark.parametrize(("files_in", "num_encoders"), [(of_sd15, 1), (of_sdxl, 2)])
def test_a_prompt_outlives_the_next_one(
    files_in: Callable[[Path], CheckpointFiles], num_encoders: int, tmp_path: Path
) -> None:
    """A replay overwrites its output, and embeddings are kept: they are their own, and eager's."""
    files, capturer = files_in(tmp_path), RecordingCapturer()
    plain, captured = (load_pipeline(files, device="cpu", dtype=torch.float32) for _ in range(2))
    with torch.inference_mode():
        for forward, inputs in captured.prompts.forwards():
            forward.capture(capturer, *inputs)
    prompts = ["a red heart", "a blue boat at sea", ""]
    made = [captured.encode_prompt(prompt) for prompt in prompts]
    assert len(capturer.captured) == num_encoders
    assert all(graph.num_replays >= len(prompts) for graph in capturer.captured)
    for prompt, embedded in zip(prompts, made, strict=True):
        expected = plain.encode_prompt(prompt)
        torch.testing.assert_close(embedded.embeds, expected.embeds)
        assert (embedded.pooled is None) == (num_encoders == 1)
        if embedded.pooled is not None and expected.pooled is not None:
            torch.testing.assert_close(embedded.pooled, expected.pooled)
    assert not torch.equal(made[0].embeds, made[1].embeds)
