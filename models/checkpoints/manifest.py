"""The manifest of a checkpoint's folder: size and sha256 of every file that is read from it.

It lies in the folder itself, whether that is bundled, a plain one or a snapshot in the hub's
cache, so that it moves, is baked into an image and is deleted with the files that it tells of.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import CheckpointError

NAME = "instant-refine-manifest.json"
FOLDER_SCOPE = ("model_index.json", "*/*")
"""Of a plain folder: the index and all in its components; what lies beside is nobody's business."""

_CHUNK_BYTES = 1 << 20
_MAX_THREADS = 8  # beyond it disks are the limit, not hashing

OnBytes = Callable[[int], None]
"""Called with how many bytes have been read since the last call, from any thread."""


class FileRecord(BaseModel):
    """What a file was when it was recorded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(ge=0)
    sha256: str = Field(pattern="[0-9a-f]{64}")


class Manifest(BaseModel):
    """Where the files came from, and what each was; paths are relative, with slashes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str  # "bundled", a hub id, or "folder"
    commit: str | None = None
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class Fault:
    """A file that is not what the manifest says."""

    kind: Literal["missing", "altered", "extra"]
    path: str
    told: str = ""

    def __str__(self) -> str:
        return f"{self.path} is {self.kind}{self.told}"


@dataclass(frozen=True)
class Scope:
    """The files of a folder that a checkpoint is answerable for, and where their manifest lies."""

    root: Path
    patterns: tuple[str, ...]
    manifest: Path

    @classmethod
    def of_folder(cls, folder: Path, patterns: tuple[str, ...] = FOLDER_SCOPE) -> Scope:
        """Return the scope of a folder."""
        return cls(folder, patterns, folder / NAME)

    @classmethod
    def of_file(cls, path: Path) -> Scope:
        """Return the scope of a file that stands alone, such as a LoRA."""
        return cls(path.parent, (path.name,), path.with_name(f"{path.name}.{NAME}"))

    def holds(self, path: str) -> bool:
        """Return whether a path is in the scope; what is hidden never is."""
        is_hidden = any(part.startswith(".") for part in path.split("/"))
        return not is_hidden and any(fnmatchcase(path, pattern) for pattern in self.patterns)

    def files(self) -> list[str]:
        """Return the paths that are there."""
        found = (path for path in self.root.rglob("*") if path.is_file() and path != self.manifest)
        return sorted(path for path in map(self._relative, found) if self.holds(path))

    def read(self) -> Manifest | None:
        """Return the manifest, None where there is none. Raises CheckpointError if broken."""
        try:
            return Manifest.model_validate_json(self.manifest.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise CheckpointError(f"{self.manifest} is no manifest: record it anew") from error

    def can_write(self) -> bool:
        """Return whether a manifest can be put here."""
        return os.access(self.manifest.parent, os.W_OK)

    def write(self, manifest: Manifest) -> None:
        """Write the manifest, whole or not at all. Raises CheckpointError where none can be."""
        fresh = self.manifest.with_name(f".{self.manifest.name}.{os.getpid()}")
        ordered = manifest.model_copy(update={"files": dict(sorted(manifest.files.items()))})
        try:
            fresh.write_text(ordered.model_dump_json(indent=1) + "\n", "utf-8")
            fresh.replace(self.manifest)
        except OSError as error:
            raise CheckpointError(f"{self.manifest} cannot be written: {error.strerror}") from error

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def record(
    scope: Scope, files: Mapping[str, FileRecord], *, source: str, commit: str | None = None
) -> Manifest:
    """Write what the files of a scope are; return the manifest.

    What is recorded of the same commit outside of the scope stays: checkpoints share a snapshot.
    Raises CheckpointError where the manifest cannot be written.
    """
    before = scope.read()
    kept = before.files if before is not None and before.commit == commit else {}
    outside = {path: known for path, known in kept.items() if not scope.holds(path)}
    manifest = Manifest(source=source, commit=commit, files={**outside, **files})
    scope.write(manifest)
    return manifest


def record_folder(folder: Path, *, source: str, on_bytes: OnBytes = lambda _: None) -> Manifest:
    """Hash a folder's files and write what they are; return the manifest. Raises as `record`."""
    scope = Scope.of_folder(folder)
    return record(scope, hash_files(folder, scope.files(), on_bytes), source=source)


def find_faults(
    scope: Scope, manifest: Manifest, *, hashes: bool, on_bytes: OnBytes = lambda _: None
) -> list[Fault]:
    """Compare the files of a scope with the manifest: sizes, with `hashes` sha256 too."""
    known = {path: known for path, known in manifest.files.items() if scope.holds(path)}
    there = set(scope.files())
    faults = [Fault("missing", path) for path in known.keys() - there]
    faults += [Fault("extra", path) for path in there - known.keys()]
    same_size = []
    for path in known.keys() & there:
        size = (scope.root / path).stat().st_size
        if size == known[path].size:
            same_size.append(path)
        else:
            told = f": {size:,} bytes, where {known[path].size:,} were recorded"
            faults.append(Fault("altered", path, told))
    found = hash_files(scope.root, same_size, on_bytes) if hashes else {}
    faults += [
        Fault("altered", path, ": its sha256 is another")
        for path, now in found.items()
        if now.sha256 != known[path].sha256
    ]
    return sorted(faults, key=lambda fault: fault.path)


def hash_files(root: Path, paths: Iterable[str], on_bytes: OnBytes) -> Mapping[str, FileRecord]:
    """Return size and sha256 of files, several at a time: hashing leaves the interpreter's lock.

    Raises CheckpointError for a file that cannot be read.
    """
    largest_first = sorted(paths, key=lambda path: -(root / path).stat().st_size)
    num_threads = min(_MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(num_threads, thread_name_prefix="hash") as threads:
        found = threads.map(lambda path: _hash(root / path, on_bytes), largest_first)
        return dict(zip(largest_first, found, strict=True))


def _hash(path: Path, on_bytes: OnBytes) -> FileRecord:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                on_bytes(len(chunk))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    return FileRecord(size=size, sha256=digest.hexdigest())
