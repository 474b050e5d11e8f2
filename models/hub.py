"""Where a checkpoint's files are on this machine, and how they get there: only when told to."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from huggingface_hub import snapshot_download

from models.catalog import BUNDLED, Checkpoint, CheckpointError, load_catalog

# Only what the loader reads is downloaded: no pickles, no code, no safety checker.
_PULLED_FILES = [
    "model_index.json",
    "scheduler/*.json",
    "tokenizer/*",
    "*/config.json",
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "tokenizer_2/*",
    "text_encoder_2/model.safetensors",
]
_PART_FILES = ["config.json", "diffusion_pytorch_model.safetensors"]
_LORA_FILE = "pytorch_lora_weights.safetensors"


def local_folder(checkpoint: Checkpoint) -> Path:
    """Return the folder with the checkpoint's files, without any network.

    Raises CheckpointError, naming the command that downloads it, when they are not here.
    """
    if checkpoint.source == BUNDLED:
        return Path(str(resources.files("models").joinpath(checkpoint.name)))
    if checkpoint.revision is None:
        return Path(checkpoint.source)
    return _snapshot(checkpoint, local_files_only=True)


def local_parts(checkpoint: Checkpoint) -> dict[str, Path]:
    """Return where the parts from elsewhere are, without any network; see `Checkpoint.parts`.

    Raises CheckpointError, naming the command that downloads them, when they are not here.
    """
    return {
        name: _part(checkpoint, name, source, local_files_only=True)
        for name, source in checkpoint.parts().items()
    }


def pull(checkpoint: Checkpoint) -> Path:
    """Download the checkpoint's files into the hub's cache, with progress bars; return the folder.

    Its parts from elsewhere too. Raises CheckpointError when the hub cannot be reached or does
    not have it.
    """
    for name, source in checkpoint.parts().items():
        _part(checkpoint, name, source, local_files_only=False)
    if checkpoint.revision is None:
        return local_folder(checkpoint)
    return _snapshot(checkpoint, local_files_only=False)


def _part(checkpoint: Checkpoint, name: str, source: str, *, local_files_only: bool) -> Path:
    """Return a part's folder, or the file of a LoRA."""
    if Path(source).exists():
        return Path(source)
    hub_id, _, revision = source.partition("@")
    part = checkpoint.model_copy(update={"source": hub_id, "revision": revision or "main"})
    files = [_LORA_FILE] if name == "lora" else _PART_FILES
    folder = _snapshot(part, local_files_only=local_files_only, files=files)
    return folder / _LORA_FILE if name == "lora" else folder


def _snapshot(
    checkpoint: Checkpoint, *, local_files_only: bool, files: Sequence[str] = _PULLED_FILES
) -> Path:
    try:
        folder = snapshot_download(
            checkpoint.source,
            revision=checkpoint.revision,
            allow_patterns=list(files),
            local_files_only=local_files_only,
        )
    except Exception as error:  # the hub's client lets errors of several libraries through
        if local_files_only:
            raise CheckpointError(
                f"{checkpoint.name} is not on this machine; download it with: "
                f"instant-refine models pull {_argument(checkpoint)}"
            ) from error
        raise CheckpointError(f"{checkpoint.name} could not be downloaded: {error}") from error
    return Path(folder)


def _argument(checkpoint: Checkpoint) -> str:
    """Return what names this very checkpoint to `models pull`."""
    if checkpoint.name in load_catalog():
        return checkpoint.name
    return f"{checkpoint.source}@{checkpoint.revision}"
