"""The files of checkpoints on this machine, and their download on request."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.auto import tqdm

from models.checkpoints.catalog import Checkpoint
from models.checkpoints.layout import check_files, needed_files, read_index
from models.checkpoints.manifest import (
    Fault,
    FileRecord,
    OnBytes,
    Scope,
    find_faults,
    hash_files,
    record,
)
from models.checkpoints.sources import Source, is_bundled, sources_of
from models.errors import CheckpointError

T = TypeVar("T")

_COMMIT = re.compile("[0-9a-f]{40}")
_SHA256_DIGITS, _GIT_DIGITS = 64, 40


class _NoBar(tqdm):  # type: ignore[misc]
    """The bars of small downloads, which would only flash."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})


@dataclass(frozen=True)
class Description:
    """What the hub says of a repository at a revision."""

    commit: str
    names: frozenset[str]
    licence: str | None


def local_folder(checkpoint: Checkpoint) -> Path:
    """Return the folder with the checkpoint's files, without any network.

    Raises CheckpointError, naming the command that downloads it, when they are not here.
    """
    return _local(checkpoint, sources_of(checkpoint)[0])


def local_parts(checkpoint: Checkpoint) -> dict[str, Path]:
    """Return where the parts from elsewhere are, without any network; see `Checkpoint.parts`.

    Raises CheckpointError, naming the command that downloads them, when they are not here.
    """
    return {
        source.part: _local(checkpoint, source) for source in sources_of(checkpoint) if source.part
    }


def is_local(checkpoint: Checkpoint) -> bool:
    """Return whether all that a checkpoint is made of is on this machine."""
    try:
        local_scopes(checkpoint)
    except CheckpointError:
        return False
    return True


def local_scopes(checkpoint: Checkpoint) -> dict[str, tuple[Source, Scope]]:
    """Return the files that a checkpoint is made of, by part. Raises as `local_folder`."""
    return {
        source.part: (source, source.scope(_local(checkpoint, source)))
        for source in sources_of(checkpoint)
    }


def verify(checkpoint: Checkpoint, *, hashes: bool) -> None:
    """Hold what is on this machine against its manifests, where there are any.

    Sizes alone, with `hashes` every sha256 too; a file that was added is no fault here. Raises
    CheckpointError with the first file that is missing or altered.
    """
    for source, scope in local_scopes(checkpoint).values():
        manifest = scope.read()
        faults = find_faults(scope, manifest, hashes=hashes) if manifest is not None else []
        for fault in faults:
            if fault.kind != "extra":
                cure = f"; `instant-refine models pull {checkpoint.told}` gets it anew"
                raise CheckpointError(
                    f"{checkpoint.name}: {fault}, in {scope.root}; `instant-refine models check "
                    f"{checkpoint.told}` tells all{cure if source.on_hub else ''}"
                )


def pull(checkpoint: Checkpoint, on_bytes: OnBytes = lambda _: None) -> None:
    """Download what is read of a checkpoint into the hub's cache, and write its manifests.

    What is here already is kept where it is what the hub announced, and got anew where not; what
    is whole and pinned at a commit is not even asked for. Raises CheckpointError when the hub
    cannot be reached, or lacks something that is needed.
    """
    sources = [source for source in sources_of(checkpoint) if source.on_hub]
    wanted = [source for source in sources if not _is_whole(checkpoint, source, on_bytes)]
    for source in wanted:  # all of them, before gigabytes of one come for nothing
        _check_complete(source)
    for source in wanted:
        _pull(source, on_bytes)


def record_source(source: Source, scope: Scope, on_bytes: OnBytes) -> list[Fault]:
    """Hash what lies in a scope into its manifest; return what is not as the hub announced it.

    Where there is such a fault, nothing is written.
    """
    files = hash_files(scope.root, scope.files(), on_bytes)
    if not source.on_hub:
        before = scope.read()
        told = before.source if before is not None else "folder"
        record(scope, files, source=source.place if is_bundled(source) else told)
        return []
    faults = [
        Fault("altered", path, ": its digest is not the hub's")
        for path, file in files.items()
        if not _is_announced(scope.root / path, file)
    ]
    if not faults:
        record(scope, files, source=source.place, commit=scope.root.name)
    return faults


def describe(place: str, revision: str) -> Description:
    """Ask the hub what a repository holds. Raises CheckpointError, saying what to do."""
    info = _asking(place, revision, lambda: HfApi().model_info(place, revision=revision))
    return Description(
        commit=str(info.sha),
        names=frozenset(file.rfilename for file in info.siblings or ()),
        licence=getattr(info.card_data, "license", None),
    )


def fetch(place: str, revision: str, patterns: Sequence[str], *, is_shown: bool = False) -> Path:
    """Download files of a repository; return the snapshot's folder. Raises CheckpointError."""

    def download() -> Path:
        bars = tqdm if is_shown else _NoBar
        return Path(
            snapshot_download(
                place, revision=revision, allow_patterns=list(patterns), tqdm_class=bars
            )
        )

    return _asking(place, revision, download)


def _local(checkpoint: Checkpoint, source: Source) -> Path:
    if is_bundled(source):
        return Path(str(resources.files("models").joinpath(checkpoint.name)))
    if not source.on_hub:
        if not Path(source.place).exists():
            raise CheckpointError(f"{checkpoint.name}: there is no {source.place}")
        return Path(source.place)
    try:
        folder = snapshot_download(
            source.place,
            revision=source.revision,
            allow_patterns=list(source.patterns),
            local_files_only=True,
        )
    except Exception as error:  # the hub's client lets errors of several libraries through
        raise CheckpointError(
            f"{checkpoint.name} is not on this machine, or not all of it; download it with: "
            f"instant-refine models pull {checkpoint.told}"
        ) from error
    return source.path_in(Path(folder))


def _pull(source: Source, on_bytes: OnBytes) -> Scope:
    for is_last in (False, True):
        folder = fetch(source.place, source.revision or "main", source.patterns, is_shown=True)
        scope = source.scope(source.path_in(folder))
        faults = record_source(source, scope, on_bytes)
        for fault in faults:
            _forget(scope.root / fault.path)
        if not faults:
            break
        if is_last:
            raise CheckpointError(f"{source.label}: {faults[0]}: the hub sent something else")
    return scope


def _is_whole(checkpoint: Checkpoint, source: Source, on_bytes: OnBytes) -> bool:
    """Return whether all of a source is here, at a commit that it is pinned at."""
    if not _COMMIT.fullmatch(source.revision or ""):
        return False
    try:
        scope = source.scope(_local(checkpoint, source))
        manifest = scope.read()
    except CheckpointError:
        return False
    return manifest is not None and not find_faults(scope, manifest, hashes=True, on_bytes=on_bytes)


def _check_complete(source: Source) -> None:
    """Raise CheckpointError where the repository lacks a file that the loader needs."""
    revision = source.revision or "main"
    described = describe(source.place, revision)
    needed = [path for path in source.patterns if "*" not in path]
    if not source.part:
        check_files(source.label, ["model_index.json"], described.names)
        index = read_index(fetch(source.place, revision, ["model_index.json"]), source.label)
        needed = [path for path in needed_files(index) if path in needed]
    check_files(source.label, needed, described.names)


def _asking(place: str, revision: str, ask: Callable[[], T]) -> T:
    """Ask the hub; what it refuses becomes a CheckpointError that says what to do."""
    try:
        return ask()
    except GatedRepoError as error:
        told = (
            f"is gated: accept its terms at {constants.ENDPOINT}/{place}, then log in with "
            "`hf auth login`, or set HF_TOKEN"
        )
        raise CheckpointError(f"{place} {told}") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{place} has no revision {revision}") from error
    except RepositoryNotFoundError as error:
        told = f"the hub has no {place}, or it is private: `hf auth login` or HF_TOKEN opens it"
        raise CheckpointError(told) from error
    except RemoteEntryNotFoundError as error:
        raise CheckpointError(f"{place} lists a file that it does not have: {error}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise CheckpointError(_unreachable(place, error)) from error
    except Exception as error:  # the hub's client lets errors of several libraries through
        if type(error).__module__.startswith("httpx"):  # of whichever it is built on
            raise CheckpointError(_unreachable(place, error)) from error
        raise CheckpointError(f"{place} could not be downloaded: {error}") from error


def _unreachable(place: str, error: Exception) -> str:
    if constants.HF_HUB_OFFLINE:
        return f"{place} is not here, and HF_HUB_OFFLINE forbids to ask the hub"
    cause = error.__cause__ or error
    return (
        f"{place}: the hub at {constants.ENDPOINT} cannot be reached ({cause}); what has been "
        "downloaded is kept, and the next pull goes on from there"
    )


def _is_announced(path: Path, file: FileRecord) -> bool:
    """Return whether a file has the digest by which the hub's cache names its blob."""
    name = path.resolve().name
    if len(name) == _SHA256_DIGITS:
        return name == file.sha256
    if len(name) == _GIT_DIGITS:  # git's own digest of a small file
        head = f"blob {file.size}\0".encode()
        return name == hashlib.sha1(head + path.read_bytes(), usedforsecurity=False).hexdigest()
    return True  # of a mirror that names them otherwise


def _forget(path: Path) -> None:
    """Remove a file of the hub's cache, so that the next download gets it anew."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
