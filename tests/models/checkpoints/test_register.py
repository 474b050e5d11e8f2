"""`models add`, `list` and `check` of one's own: what is detected, refused, recorded and found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints.catalog import Checkpoint, find_checkpoint, find_checkpoints, load_catalog
from models.checkpoints.manifest import Scope, record_folder
from models.checkpoints.register import adopt, append, examine, to_checkpoint
from models.errors import CheckpointError
from tests.models.checkpoints.conftest import Machine
from tests.support.checkpoints import (
    write_checkpoint,
    write_plain_checkpoint,
    write_sdxl_checkpoint,
)
from tests.support.fake_hub import FakeHub

UNET = "unet/diffusion_pytorch_model.safetensors"


def edit(folder: Path, file: str, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that the test may change."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def of_width(folder: Path, width: int) -> Path:
    """Give a tiny checkpoint the text width by which its family is told."""
    edit(folder, "unet/config.json", lambda config: config.update(cross_attention_dim=width))
    return folder


def add(folder: Path, lora: str | None = None) -> Checkpoint:
    candidate = examine(str(folder))
    return to_checkpoint("mine", candidate, licence="MIT", lora=lora, tiny=None)


def test_the_three_kinds_are_detected(tmp_path: Path) -> None:
    """An LCM stays as it is; plain ones get the LCM-LoRA and tiny autoencoder of their family."""
    catalog = load_catalog()
    embedded = add(of_width(write_checkpoint(tmp_path / "lcm"), 768))
    assert embedded.title == "SD 1.5 LCM with a guidance embedding"
    assert (embedded.lora, embedded.tiny) == (None, catalog["sd15-lcm-lora"].tiny)
    plain = add(of_width(write_plain_checkpoint(tmp_path / "plain"), 768))
    assert plain.title == "SD 1.5 with an LCM-LoRA"
    assert plain.lora == catalog["sd15-lcm-lora"].lora
    sdxl = add(write_sdxl_checkpoint(tmp_path / "sdxl"))
    assert sdxl.title == "SDXL with an LCM-LoRA"
    assert (sdxl.lora, sdxl.tiny) == (
        catalog["sdxl-lcm-lora"].lora,
        catalog["sdxl-lcm-lora"].tiny,
    )
    with pytest.raises(CheckpointError, match="no LCM-LoRA for SD 2 is known: give one by --lora"):
        add(of_width(write_plain_checkpoint(tmp_path / "two"), 1024))


def pickled(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def sharded(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.safetensors.index.json")


def cut(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-1])


def indexed(name: str, library: str, kind: str) -> Callable[[Path], None]:
    return lambda folder: edit(
        folder, "model_index.json", lambda index: index.update({name: [library, kind]})
    )


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a pickle": (pickled, r"has no unet/.*\.bin is a pickle"),
    "shards": (sharded, "is of weights in several files"),
    "cut": (cut, "unet/diffusion_pytorch_model.safetensors is cut short"),
    "own code": (indexed("unet", "my_unet", "UNet2DConditionModel"), "my_unet: code of a"),
    "auto_map": (
        lambda folder: edit(
            folder, "text_encoder/config.json", lambda config: config.update(auto_map={})
        ),
        "text_encoder/config.json has an auto_map",
    ),
    "another class": (indexed("unet", "diffusers", "FluxTransformer2DModel"), "is a FluxTransf"),
    "another part": (indexed("controlnet", "diffusers", "ControlNetModel"), "controlnet is not"),
    "another scheduler": (indexed("scheduler", "diffusers", "PNDMScheduler"), "PNDMScheduler, not"),
    "inpainting": (
        lambda folder: edit(folder, "unet/config.json", lambda unet: unet.update(in_channels=9)),
        "takes 9 channels",
    ),
    "no folder": (shutil.rmtree, "neither a folder nor a hub id"),
    "empty": (lambda folder: (folder / "model_index.json").unlink(), "has no model_index.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_could_not_be_loaded_is_refused_by_name(fault: str, folder: Path) -> None:
    """Each fault is one error that names the file or class, before anything is written."""
    break_it, sentence = FAULTS[fault]
    break_it(folder)
    with pytest.raises(CheckpointError, match=sentence):
        examine(str(folder))


def test_a_row_is_found_by_its_name_and_leaves_the_file_as_it_was(
    folder: Path, tmp_path: Path
) -> None:
    """Comments and rows of a user's file outlive an addition; what was added is found by name."""
    own = tmp_path / "deep" / "catalog.toml"
    own.parent.mkdir()
    before = f'# mine\n[first]  # kept\nsource = "{folder}"\ndefaults = {{ strength = 0.7 }}\n'
    own.write_text(before)
    append(add(folder), own)
    assert own.read_text().startswith(before)
    found = find_checkpoint("mine", str(own))
    assert (found.source, found.licence, found.revision) == (str(folder), "MIT", None)
    assert list(load_catalog(str(own)))[-2:] == ["first", "mine"]
    assert load_catalog(str(own))["first"].defaults.strength == 0.7


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[x\n", "line 1"),
        ('[x]\nsource = "a/b"\nlicense = "MIT"\n', "x: license: Extra inputs"),
        ('[x]\ntitle = "no source"\n', "x: source: Field required"),
        ('[pocket]\nsource = "a/b"\n', "pocket is a name of the bundled catalogue"),
    ],
)
def test_a_faulty_catalogue_is_told_with_its_row(text: str, sentence: str, tmp_path: Path) -> None:
    """File, row and field are named, rather than a row ignored."""
    own = tmp_path / "catalog.toml"
    own.write_text(text)
    with pytest.raises(CheckpointError, match=sentence):
        load_catalog(str(own))


def test_two_checkpoints_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    """`modelId` could not choose between them; without the error one would be lost."""
    twin = shutil.copytree(folder, tmp_path / "other" / folder.name)
    with pytest.raises(CheckpointError, match="both named checkpoint"):
        find_checkpoints([str(folder), str(twin)])


def test_add_list_and_check_a_folder(machine: Machine, folder: Path) -> None:
    """A folder is recorded when it is added; the check names what is altered, missing and extra."""
    code, said = machine.models("add", "mine", folder)
    assert (code, "licence unknown" in said) == (0, True), said
    (row,) = [row for row in json.loads(machine_list(machine)) if row["name"] == "mine"]
    assert row["bytes"] > 100_000
    assert machine.models("check", "mine")[0] == 0
    content = bytearray((folder / UNET).read_bytes())
    content[-1] ^= 1
    (folder / UNET).write_bytes(content)
    (folder / "tokenizer" / "tokenizer_config.json").unlink()
    (folder / "unet" / "more.safetensors").touch()
    code, said = machine.models("check", "mine")
    assert code == 1
    for fault in (
        f"{UNET} is altered",
        "tokenizer/tokenizer_config.json is missing",
        "unet/more.safetensors is extra",
    ):
        assert fault in said
    code, said = machine.models("add", "mine", folder)
    assert (code, "mine is taken" in said) == (1, True)


def test_a_folder_with_a_manifest_is_held_against_it_when_it_is_added(folder: Path) -> None:
    """What was altered since it was recorded is not taken for right by being added."""
    record_folder(folder, source="somewhere")
    adopt(add(folder))
    (folder / "tokenizer" / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer_config.json is missing.*--record"):
        adopt(add(folder))
    manifest = Scope.of_folder(folder).read()
    assert manifest is not None
    assert manifest.source == "somewhere"


@pytest.mark.slow
@pytest.mark.parametrize("is_full", [False, True])
def test_a_start_tells_the_file_that_is_damaged(
    machine: Machine, folder: Path, is_full: bool
) -> None:
    """A cut file ends any start, other bytes of the same size one with --verify, by name."""
    record_folder(folder, source="folder")
    content = bytearray((folder / UNET).read_bytes())
    content[-1] ^= 1
    (folder / UNET).write_bytes(content if is_full else content[:-1])
    arguments = ["--verify"] if is_full else []
    code, said = machine.run("serve", "--port", "0", "--model", folder, *arguments)
    assert (code, f"{UNET} is altered" in said) == (1, True), said


def machine_list(machine: Machine) -> str:
    code, said = machine.models("list", "--json")
    assert code == 0
    return said


def test_a_hub_id_is_added_at_its_commit_and_then_pulled(
    hub: FakeHub, machine: Machine, tiny_files: dict[str, bytes]
) -> None:
    """Adding downloads configs alone, takes the hub's licence, and pins what `main` is now."""
    repository = hub.add("someone/tiny", tiny_files)
    repository.licence = "apache-2.0"
    code, said = machine.models("add", "mine", "someone/tiny")
    assert (code, "models pull mine" in said) == (0, True), said
    assert not [path for path in hub.downloaded("someone/tiny") if not path.endswith(".json")]
    found = find_checkpoint("mine", str(machine.catalog))
    assert (found.revision, found.licence) == (repository.commit, "apache-2.0")
    assert machine.models("check", "mine")[0] == 1
    assert machine.models("pull", "mine")[0] == 0
    assert machine.models("check", "mine")[0] == 0


def test_names_and_licences_are_whole_on_a_narrow_terminal(machine: Machine) -> None:
    """At 80 columns the names that other commands take, and the revisions, are not cut."""
    code, said = machine.models("list", COLUMNS="80")
    assert code == 0
    for row in load_catalog().values():
        assert row.name in said
        assert (row.revision or "bundled")[:10] in said
    assert "Apache-2.0" in said
    assert "…" not in said
