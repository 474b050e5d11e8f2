"""What is loaded, and what is refused with its name."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import CheckpointError
from models.loader import CheckpointFiles, load_pipeline


def changed(file: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def component(name: str, class_name: str) -> Callable[[Path], None]:
    return changed("model_index.json", lambda index: index.update({name: ["x", class_name]}))


def removed(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def truncated(file: str, by_bytes: int = 0) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: -(by_bytes or len(content) // 2)])

    return apply


def long_header(folder: Path) -> None:
    """Announce a header of 100 MB, which is there, but sparse."""
    with (folder / "unet" / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 100_000_000))
        file.truncate(100_000_100)


def pickled(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")


FAULTS = {
    "no index": (removed("model_index.json"), "model_index.json is missing"),
    "another UNet": (component("unet", "FluxTransformer2DModel"), "unet is a FluxTransformer"),
    "another autoencoder": (component("vae", "AutoencoderDC"), "vae is a AutoencoderDC"),
    "another text encoder": (component("text_encoder", "T5EncoderModel"), "T5EncoderModel"),
    "code as component": (component("unet", "os.system"), "unet is a os.system"),
    "another tokenizer": (component("tokenizer", "T5Tokenizer"), "tokenizer is a T5Tokenizer"),
    "no lcm": (component("scheduler", "PNDMScheduler"), "PNDMScheduler, not an LCMScheduler"),
    "no unet named": (changed("model_index.json", lambda index: index.pop("unet")), "no unet"),
    "no guidance embedding": (
        changed("unet/config.json", lambda config: config.update(time_cond_proj_dim=None)),
        "unet's weights do not fit its config: time_embedding.cond_proj",
    ),
    "no text layer": (
        changed("text_encoder/config.json", lambda config: config.update(num_hidden_layers=3)),
        "text_encoder's weights do not fit",
    ),
    "a component of another kind": (
        component("controlnet", "ControlNetModel"),
        "the component controlnet is not supported",
    ),
    "shifted latents": (
        changed("vae/config.json", lambda config: config.update(shift_factor=0.5)),
        "shift_factor is not supported",
    ),
    "thresholding": (
        changed("scheduler/scheduler_config.json", lambda config: config.update(thresholding=True)),
        "thresholding is not supported",
    ),
    "no weights": (removed("unet/diffusion_pytorch_model.safetensors"), "unet cannot be loaded"),
    "a pickle": (pickled, "unet cannot be loaded"),
    "a header of 100 MB": (long_header, "unet cannot be loaded.*no safetensors file"),
    "cut by a byte": (truncated("vae/diffusion_pytorch_model.safetensors", 1), "is cut short"),
    "cut weights": (truncated("vae/diffusion_pytorch_model.safetensors"), "vae cannot be loaded"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_checkpoint_is_refused_by_name(
    fault: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Each fault is one error that names the component and what is wrong with it."""
    break_it, sentence = FAULTS[fault]
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    break_it(folder)
    with pytest.raises(CheckpointError, match=sentence):
        load_pipeline(CheckpointFiles(folder), device="cpu", dtype=torch.float32)


def test_files_that_are_never_loaded_are_not_judged(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Published folders hold pickles and code beside the weights: they are left alone."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not a pickle")
    (folder / "pipeline.py").write_text("raise SystemExit")
    pipeline = load_pipeline(CheckpointFiles(folder), device="cpu", dtype=torch.float32)
    assert pipeline.latent_shape(512, 640) == (4, 64, 80)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_is_loaded_in_the_asked_dtype(
    tiny_checkpoint: Path, dtype: torch.dtype
) -> None:
    """Weights stored in one dtype run in another."""
    pipeline = load_pipeline(CheckpointFiles(tiny_checkpoint), device="cpu", dtype=dtype)
    vae, (text_encoder,) = pipeline.autoencoders["full"].vae, pipeline.prompts.encoders
    assert pipeline.dtype == vae.dtype == text_encoder.dtype == dtype
    row = pipeline.condition(pipeline.encode_prompt("a boat"), 8.0, 64, 64)
    assert row.prompt_embeds.dtype == dtype
