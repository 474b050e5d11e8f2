"""What a checkpoint is made of: folders and repositories, and which of their files are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.checkpoints.catalog import BUNDLED, Checkpoint, is_hub_id
from models.checkpoints.layout import WEIGHTS, patterns
from models.checkpoints.manifest import FOLDER_SCOPE, Scope

LORA_FILE = "pytorch_lora_weights.safetensors"
_PART_FILES = ("config.json", WEIGHTS)


@dataclass(frozen=True)
class Source:
    """A folder, a file or a repository; `part` is empty for the checkpoint itself.

    `place` is "bundled", a path, or the hub id of a repository at `revision`.
    """

    part: str
    place: str
    revision: str | None
    patterns: tuple[str, ...]

    @property
    def on_hub(self) -> bool:
        """Return whether it comes from the hub."""
        return self.revision is not None

    @property
    def label(self) -> str:
        """The source as errors name it."""
        return f"{self.place}@{self.revision}" if self.on_hub else self.place

    def path_in(self, folder: Path) -> Path:
        """Return what the loader is given of a snapshot: the folder, or the file of a LoRA."""
        return folder / LORA_FILE if self.part == "lora" else folder

    def scope(self, path: Path) -> Scope:
        """Return which files of what lies at `path` this source is answerable for."""
        if self.on_hub:
            folder = path.parent if self.part == "lora" else path
            return Scope.of_folder(folder, self.patterns)
        if path.is_file():
            return Scope.of_file(path)
        return Scope.of_folder(path, FOLDER_SCOPE if not self.part else self.patterns)


def sources_of(checkpoint: Checkpoint) -> list[Source]:
    """Return what a checkpoint is made of, itself first."""
    parts = checkpoint.parts()
    own = Source(
        "", checkpoint.source, checkpoint.revision, patterns(parts.keys() & {"unet", "vae"})
    )
    return [own, *(_part(name, source) for name, source in parts.items())]


def is_bundled(source: Source) -> bool:
    """Return whether a source comes with the package."""
    return source.place == BUNDLED


def _part(name: str, source: str) -> Source:
    files = (LORA_FILE,) if name == "lora" else _PART_FILES
    if Path(source).exists() or not is_hub_id(source):
        return Source(name, source, None, files)
    place, _, revision = source.partition("@")
    return Source(name, place, revision or "main", files)
