"""Manifests: what is recorded of a folder, and what is found to be another."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from models.checkpoints.catalog import find_checkpoint
from models.checkpoints.hub import local_folder, verify
from models.checkpoints.manifest import NAME, Scope, find_faults, hash_files, record_folder
from models.errors import CheckpointError

POCKET = local_folder(find_checkpoint("pocket"))


def test_pocket_is_what_its_manifest_says() -> None:
    """The committed manifest is true; `instant-refine models check pocket --record` renews it."""
    scope = Scope.of_folder(POCKET)
    manifest = scope.read()
    assert manifest is not None
    assert not find_faults(scope, manifest, hashes=True)
    weights = POCKET / "unet" / "diffusion_pytorch_model.safetensors"
    known = manifest.files["unet/diffusion_pytorch_model.safetensors"].sha256
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == known


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


@pytest.mark.parametrize("seed", range(20))
def test_faults_are_exactly_what_was_done_to_the_files(seed: int, tmp_path: Path) -> None:
    """Whatever is removed, added, lengthened or changed is named once; nothing else is.

    A check of sizes alone finds all of it but what changed within its size.
    """
    chance = random.Random(seed)
    files = {f"part_{n % 3}/{n}.bin": chance.randbytes(1 + n * 50_000) for n in range(8)}
    write_files(tmp_path, {**files, "README.md": b"of nobody's business"})
    manifest = record_folder(tmp_path, source="folder")
    expected, silent = set(), set()
    for path, content in files.items():
        what = chance.choice(["nothing", "remove", "lengthen", "change"])
        if what == "remove":
            (tmp_path / path).unlink()
            expected.add(("missing", path))
        elif what == "lengthen":
            (tmp_path / path).write_bytes(content + b"x")
            expected.add(("altered", path))
        elif what == "change":
            (tmp_path / path).write_bytes(bytes([content[0] ^ 1]) + content[1:])
            silent.add(("altered", path))
    for n in range(chance.randrange(3)):
        write_files(tmp_path, {f"part_0/new_{n}": b""})
        expected.add(("extra", f"part_0/new_{n}"))
    write_files(tmp_path, {"notes.txt": b"", ".cache/x": b""})
    scope = Scope.of_folder(tmp_path)
    for hashes, faults in ((False, expected), (True, expected | silent)):
        found = find_faults(scope, manifest, hashes=hashes)
        assert sorted((fault.kind, fault.path) for fault in found) == sorted(faults)


def test_every_byte_is_reported_as_it_is_hashed(tmp_path: Path) -> None:
    """A progress bar over the sizes ends where they end, whatever the threads do."""
    write_files(tmp_path, {f"a/{n}": bytes(n * 700_001) for n in range(9)})
    seen: list[int] = []
    found = hash_files(tmp_path, [f"a/{n}" for n in range(9)], seen.append)
    assert sum(seen) == sum(file.size for file in found.values()) == 36 * 700_001


def test_a_start_names_the_file_that_is_not_as_recorded(tmp_path: Path) -> None:
    """Another size stops a start, as does a missing file; other bytes do where hashes are asked.

    A file that was added, such as a style's LoRA, is no fault, and no manifest is none.
    """
    checkpoint = find_checkpoint(str(tmp_path))
    verify(checkpoint, hashes=True)
    write_files(tmp_path, {"unet/weights": b"whole", "vae/weights": b"whole"})
    record_folder(tmp_path, source="folder")
    write_files(tmp_path, {"loras/INK.safetensors": b"added", "vae/weights": b"WHOLE"})
    verify(checkpoint, hashes=False)
    with pytest.raises(CheckpointError, match="vae/weights is altered: its sha256 is another"):
        verify(checkpoint, hashes=True)
    write_files(tmp_path, {"unet/weights": b"cut"})
    with pytest.raises(CheckpointError, match="unet/weights is altered: 3 bytes, where 5 were"):
        verify(checkpoint, hashes=False)
    (tmp_path / "unet" / "weights").unlink()
    with pytest.raises(CheckpointError, match=r"unet/weights is missing.*models check"):
        verify(checkpoint, hashes=False)


@pytest.mark.parametrize("content", ["", "{}", '{"source": "x", "files": {"a": {"size": -1}}}'])
def test_a_broken_manifest_is_an_error(content: str, tmp_path: Path) -> None:
    """Rather than the absence of one, which would check nothing."""
    (tmp_path / NAME).write_text(content)
    with pytest.raises(CheckpointError, match="is no manifest"):
        verify(find_checkpoint(str(tmp_path)), hashes=False)


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path: Path) -> None:
    """The manifest's own path is in the error."""
    (tmp_path / NAME).mkdir()
    (tmp_path / "a").mkdir()
    scope = Scope.of_folder(tmp_path)
    with pytest.raises(CheckpointError, match=f"{NAME} cannot be written"):
        scope.write(record_folder(tmp_path / "a", source="folder"))
