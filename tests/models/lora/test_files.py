"""Where a style's LoRA is: beside the file of styles, or in the cache of the hub, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from models.errors import CheckpointError
from models.lora import files as lora_files
from models.lora.files import local_lora, own_lora, pull_loras
from models.styles.presets import HubFile, Style, hub_file, load_styles

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_styles(folder: Path, lora: str) -> dict[str, Style]:
    """Write a file of styles with one LoRA, on its line 5."""
    path = folder / "styles.toml"
    path.write_text(f'\n[INK]\ntitle = "Ink"\nprompt = "{{prompt}}, ink"\nlora = "{lora}"\n')
    return dict(load_styles(str(path)))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in the hub's own layout: one repository, at one commit, which a tag names."""
    folder = tmp_path / "hub"
    repository = folder / "models--someone--ink"
    snapshot = repository / "snapshots" / COMMIT
    (snapshot / "loras").mkdir(parents=True)
    (snapshot / "loras" / "ink.safetensors").write_bytes(b"a LoRA")
    (snapshot / "pytorch_lora_weights.safetensors").write_bytes(b"another")
    (repository / "refs").mkdir()
    (repository / "refs" / "v1.0").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return snapshot


@pytest.mark.parametrize(
    ("lora", "named"),
    [
        ("a/b@main:c.safetensors", HubFile("a/b", "main", "c.safetensors")),
        (f"a/b@{COMMIT}:d/c.safetensors", HubFile("a/b", COMMIT, "d/c.safetensors")),
        ("a.x/b-c@v1", HubFile("a.x/b-c", "v1", "pytorch_lora_weights.safetensors")),
        ("ink.safetensors", None),
        ("loras/ink.safetensors", None),
        ("a/b:c.safetensors", None),
        ("/a/b@main:c.safetensors", None),
        ("a/b@main:../c.safetensors", None),
        ("a/b@main:c.ckpt", None),
    ],
)
def test_a_hub_id_is_told_from_a_path(lora: str, named: HubFile | None) -> None:
    """It has an owner, a name and a revision, and the file is safetensors; all else is a path."""
    assert hub_file(lora) == named


@pytest.mark.parametrize(
    ("lora", "content"),
    [
        (f"someone/ink@{COMMIT}:loras/ink.safetensors", b"a LoRA"),
        ("someone/ink@v1.0:loras/ink.safetensors", b"a LoRA"),
        ("someone/ink@v1.0", b"another"),
    ],
)
def test_a_lora_of_the_hub_is_found_in_its_cache(
    lora: str, content: bytes, cache: Path, tmp_path: Path
) -> None:
    """By commit or tag, by the file that is named or the usual one; nothing is asked elsewhere."""
    path = local_lora(write_styles(tmp_path, lora)["INK"])
    assert path is not None
    assert path.is_relative_to(cache)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("lora", "sentence"),
    [
        ("someone/ink@v2.0", "ink@v2.0 is not on this machine.*styles --pull"),
        ("someone/else@v1.0:a.safetensors", "a.safetensors of someone/else@v1.0 is not on this"),
        ("gone.safetensors", "there is no file .*gone.safetensors"),
    ],
)
@pytest.mark.usefixtures("cache")
def test_a_lora_that_is_not_here_names_line_field_and_cure(
    lora: str, sentence: str, tmp_path: Path
) -> None:
    """The service does not start without it, and downloads nothing by itself."""
    with pytest.raises(CheckpointError, match=f"styles.toml, line 5: INK: lora: .*{sentence}"):
        local_lora(write_styles(tmp_path, lora)["INK"])


class FakeHub:
    """A hub that has every file, and keeps what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str, str]] = []

    def __call__(self, repository: str, file: str, *, revision: str, local_files_only: bool) -> str:
        assert not local_files_only
        self.asked.append((repository, file, revision))
        path = self.folder / file
        path.write_bytes(b"downloaded")
        return str(path)


def test_only_a_pull_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fetches what styles name on the hub, at their revision, and leaves paths alone."""
    hub = FakeHub(tmp_path)
    monkeypatch.setattr(lora_files, "hf_hub_download", hub)
    styles = write_styles(tmp_path, "someone/ink@v3:ink.safetensors")
    assert pull_loras(styles) == {"INK": tmp_path / "ink.safetensors"}
    assert hub.asked == [("someone/ink", "ink.safetensors", "v3")]
    (tmp_path / "other").mkdir()
    assert pull_loras(write_styles(tmp_path / "other", "here.safetensors")) == {}


def test_a_pull_that_fails_names_line_and_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the hub's client raises ends as one sentence."""

    def out_of_reach(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(lora_files, "hf_hub_download", out_of_reach)
    styles = write_styles(tmp_path, "someone/ink@v3:ink.safetensors")
    with pytest.raises(CheckpointError, match=r"line 5: INK: lora: .*downloaded: no route"):
        pull_loras(styles)


def test_a_file_that_is_there_is_a_path(tmp_path: Path) -> None:
    """A folder beside the styles may be called whatever it likes."""
    (tmp_path / "someone").mkdir()
    (tmp_path / "someone" / "ink@v1").write_bytes(b"a LoRA")
    style = write_styles(tmp_path, "someone/ink@v1")["INK"]
    assert local_lora(style) == tmp_path / "someone" / "ink@v1"


def test_a_checkpoint_brings_loras_along(tmp_path: Path) -> None:
    """They lie in its folder by the name of their style."""
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "ANIME.safetensors").write_bytes(b"a LoRA")
    styles = load_styles()
    assert own_lora(tmp_path, styles["ANIME"]) == tmp_path / "loras" / "ANIME.safetensors"
    assert own_lora(tmp_path, styles["VIBRANT"]) is None
