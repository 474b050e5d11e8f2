"""A checkpoint of the user's own: looked at, and written into his catalogue file."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from models.checkpoints.catalog import Checkpoint, is_hub_id, is_name, load_catalog
from models.checkpoints.hub import describe, fetch, record_source
from models.checkpoints.layout import (
    CONFIGS,
    Layout,
    check_files,
    needed_files,
    read_index,
    read_layout,
)
from models.checkpoints.manifest import OnBytes, find_faults
from models.checkpoints.safetensors_header import read_header
from models.checkpoints.sources import LORA_FILE, sources_of
from models.errors import CheckpointError

_TWINS = {"SD 1.5": "sd15-lcm-lora", "SDXL": "sdxl-lcm-lora"}
"""The row whose LCM-LoRA and tiny autoencoder fit a family."""

_WRITTEN = ("title", "source", "revision", "licence", "lora", "tiny")


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that could be loaded, as far as its configs show."""

    source: str
    revision: str | None
    layout: Layout
    licence: str | None  # as the hub has it


def examine(where: str) -> Candidate:
    """Look at a folder, or at a hub id `ORG/NAME[@REVISION]`, of which configs are downloaded.

    Raises CheckpointError, by name, for what could not be loaded: weights that are pickles, code
    of the checkpoint's own, classes that are not supported.
    """
    folder = Path(where).expanduser()
    if folder.is_dir():
        return _examine_folder(folder.resolve())
    if is_hub_id(where):
        return _examine_repository(*_split(where))
    raise CheckpointError(f"{where} is neither a folder nor a hub id ORG/NAME[@REVISION]")


def to_checkpoint(
    name: str, candidate: Candidate, *, licence: str, lora: str | None, tiny: str | None
) -> Checkpoint:
    """Make a row of a candidate. A plain checkpoint gets the LCM-LoRA of its family.

    `lora` and `tiny` are a path or hub id each. Raises CheckpointError for a part that is none, or
    where no LCM-LoRA of the family is known.
    """
    layout = candidate.layout
    twin = load_catalog().get(_TWINS.get(layout.family, ""))
    if lora is None and layout.needs_lora:
        if twin is None:
            raise CheckpointError(f"no LCM-LoRA for {layout.family} is known: give one by --lora")
        lora = twin.lora
    elif lora is not None:
        lora = _pin(lora, [LORA_FILE])
    if tiny is not None:
        tiny = _pin(tiny, CONFIGS["tiny"])
    elif twin is not None:
        tiny = twin.tiny
    return Checkpoint(
        name=name,
        title=layout.title,
        source=candidate.source,
        revision=candidate.revision,
        licence=licence,
        lora=lora,
        tiny=tiny,
    )


def check_name(name: str, own: Path) -> None:
    """Raise CheckpointError for a name that is none, or taken."""
    if not is_name(name):
        raise CheckpointError(f"{name!r} is no name: letters, digits, dots, - and _ make one")
    if name in load_catalog():
        raise CheckpointError(f"{name} is a name of the bundled catalogue: choose another")
    if name in load_catalog(str(own)):
        raise CheckpointError(f"{name} is taken: remove its table from {own} first")


def adopt(checkpoint: Checkpoint, on_bytes: OnBytes = lambda _: None) -> None:
    """Record what lies in a folder, or hold it against the manifest that it has already.

    Raises CheckpointError for a folder that is not as its manifest says, or that may not be
    written to.
    """
    source = sources_of(checkpoint)[0]
    scope = source.scope(Path(source.place))
    manifest = scope.read()
    if manifest is None:
        record_source(source, scope, on_bytes)
        return
    if faults := find_faults(scope, manifest, hashes=True, on_bytes=on_bytes):
        raise CheckpointError(
            f"{source.place} is not as its manifest says: {faults[0]}; `instant-refine models "
            f"check {source.place} --record` takes it as it is now for right"
        )


def append(checkpoint: Checkpoint, own: Path) -> None:
    """Write a checkpoint into the user's catalogue, whose other lines stay as they are.

    Raises CheckpointError for a file that cannot be read or written.
    """
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        document = tomlkit.parse(own.read_text("utf-8")) if own.exists() else tomlkit.document()
        fields = checkpoint.model_dump(include=set(_WRITTEN), exclude_none=True)
        table = tomlkit.table()
        for field in _WRITTEN:
            if field in fields:
                table.add(field, fields[field])
        document[checkpoint.name] = table
        fresh = own.with_name(f".{own.name}.{os.getpid()}")
        fresh.write_text(tomlkit.dumps(document), "utf-8")
        fresh.replace(own)
    except (OSError, TOMLKitError) as error:
        raise CheckpointError(f"the catalogue {own} cannot be changed: {error}") from error


def _examine_folder(folder: Path) -> Candidate:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    layout = _examine(folder, str(folder), names)
    for path in needed_files(read_index(folder, str(folder))):
        if path.endswith(".safetensors"):
            read_header(folder / path)
    return Candidate(str(folder), None, layout, None)


def _examine_repository(place: str, revision: str) -> Candidate:
    described = describe(place, revision)
    check_files(place, ["model_index.json"], described.names)
    folder = fetch(place, described.commit, CONFIGS["checkpoint"])
    layout = _examine(folder, place, described.names)
    return Candidate(place, described.commit, layout, described.licence)


def _examine(folder: Path, where: str, names: Collection[str]) -> Layout:
    check_files(where, ["model_index.json"], names)
    index = read_index(folder, where)
    check_files(where, [path for path in needed_files(index) if path.endswith(".json")], names)
    layout = read_layout(folder, where)
    check_files(where, needed_files(index), names)
    return layout


def _pin(part: str, needed: Collection[str]) -> str:
    """Return a part as a path that holds anywhere, or as a hub id at a commit."""
    path = Path(part).expanduser()
    if path.exists():
        if path.is_file():
            read_header(path)
        return str(path.resolve())
    if not is_hub_id(part):
        raise CheckpointError(f"{part} is neither a path nor a hub id ORG/NAME[@REVISION]")
    place, revision = _split(part)
    described = describe(place, revision)
    check_files(place, needed, described.names)
    return f"{place}@{described.commit}"


def _split(hub_id: str) -> tuple[str, str]:
    place, _, revision = hub_id.partition("@")
    return place, revision or "main"
