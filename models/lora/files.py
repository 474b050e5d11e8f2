"""Which LoRA file a style has on a checkpoint, and where it is: here, or in the hub's cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import hf_hub_download

from models.styles.presets import hub_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.styles.presets import HubFile, Style

_COMMAND = "instant-refine styles --pull"


def own_lora(folder: Path, style: Style) -> Path | None:
    """Return the LoRA that a checkpoint brings along for a style, if it does."""
    path = folder / "loras" / f"{style.name}.safetensors"
    return path if path.is_file() else None


def local_lora(style: Style) -> Path | None:
    """Return the LoRA that a style names, without any network; None where it names none.

    Raises CheckpointError, with line and field, when it is not on this machine.
    """
    if style.lora is None:
        return None
    if (named := hub_file(style.lora)) is not None:
        return _from_hub(style, named, is_offline=True)
    if not Path(style.lora).is_file():
        raise style.fault("lora", f"there is no file {style.lora}")
    return Path(style.lora)


def pull_loras(styles: Mapping[str, Style]) -> dict[str, Path]:
    """Download into the hub's cache what the styles name there; return the files by style.

    Raises CheckpointError, with line and field, for one that the hub does not have, or when the
    hub cannot be reached.
    """
    return {
        name: _from_hub(style, named, is_offline=False)
        for name, style in styles.items()
        if (named := hub_file(style.lora or "")) is not None
    }


def _from_hub(style: Style, named: HubFile, *, is_offline: bool) -> Path:
    try:
        path = hf_hub_download(
            named.repository,
            named.file,
            revision=named.revision,
            local_files_only=is_offline,
        )
    except Exception as error:  # the hub's client lets errors of several libraries through
        what = f"{named.file} of {named.repository}@{named.revision}"
        if is_offline:
            cure = f"is not on this machine; download it with: {_COMMAND}"
            raise style.fault("lora", f"{what} {cure}") from error
        raise style.fault("lora", f"{what} could not be downloaded: {error}") from error
    return Path(path)
