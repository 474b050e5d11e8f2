"""`models pull` and `check` against a hub by hand: what is got, verified, refused and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.models.checkpoints.conftest import Machine, decoys
from tests.support.fake_hub import FakeHub

ID = "someone/tiny"
UNET = "unet/diffusion_pytorch_model.safetensors"
MANIFEST = "instant-refine-manifest.json"


def test_a_pull_is_whole_and_recorded(
    hub: FakeHub, machine: Machine, tiny_files: dict[str, bytes]
) -> None:
    """What the loader reads comes, and no more, and is recorded with commit and sha256."""
    commit = hub.add(ID, tiny_files).commit
    code, said = machine.models("pull", ID)
    assert (code, commit in said) == (0, True), said
    wanted = tiny_files.keys() - decoys().keys()
    assert machine.pulled(ID, commit) == {*wanted, MANIFEST}
    manifest = json.loads((machine.snapshot(ID, commit) / MANIFEST).read_text())
    assert (manifest["source"], manifest["commit"]) == (ID, commit)
    assert {path: file["size"] for path, file in manifest["files"].items()} == {
        path: len(tiny_files[path]) for path in wanted
    }


@pytest.mark.slow
def test_what_was_pulled_works_without_a_network(
    hub: FakeHub, machine: Machine, tiny_files: dict[str, bytes]
) -> None:
    """Neither the check nor a picture asks the hub for anything."""
    hub.add(ID, tiny_files)
    assert machine.models("pull", ID)[0] == 0
    asked = len(hub.downloads)
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert machine.models("check", ID, **offline)[0] == 0
    picture = Path("docs/images/doodle.jpg").resolve()
    out = machine.home / "out.png"
    told = machine.run("refine", picture, "-p", "a boat", "--model", ID, "-o", out, **offline)
    assert told[0] == 0, told
    assert out.exists()
    assert len(hub.downloads) == asked


def test_a_cut_download_goes_on_where_it_was_cut(
    hub: FakeHub, machine: Machine, tiny_files: dict[str, bytes]
) -> None:
    """The rest is asked for by its first byte, of whole chunks of 10 MB, and the whole is right."""
    chunk = constants.DOWNLOAD_CHUNK_SIZE
    hub.add(ID, {**tiny_files, UNET: bytes(chunk + 2000)}).cut_after[UNET] = chunk + 1000
    code, said = machine.models("pull", ID)
    assert code == 0, said
    assert [start for _, path, start in hub.downloads if path == UNET] == [0, chunk]
    assert machine.models("check", ID)[0] == 0


@pytest.mark.slow
def test_a_pull_that_broke_off_goes_on_with_the_files_that_lack(
    hub: FakeHub, machine: Machine, tiny_files: dict[str, bytes]
) -> None:
    """What came before a file failed is kept; the next pull asks for the others alone."""
    repository = hub.add(ID, tiny_files)
    repository.lost.add(UNET)
    code, said = machine.models("pull", ID)
    assert code == 1
    assert "does not have" in said
    assert UNET in said
    assert machine.models("check", ID)[0] == 1
    repository.lost.clear()
    came = {path for path in hub.downloaded(ID) if path != UNET}
    hub.downloads.clear()
    assert machine.models("pull", ID)[0] == 0
    assert not came & hub.downloaded(ID)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 9])
def test_other_bytes_than_announced_are_got_again_and_then_refused(
    hub: FakeHub, machine: Machine, tiny_files: dict[str, bytes], times: int
) -> None:
    """A file of the right size with another digest is never taken for the checkpoint's."""
    repository = hub.add(ID, tiny_files)
    repository.garbled[UNET] = times
    code, said = machine.models("pull", ID)
    assert code == (0 if times == 1 else 1), said
    assert ("sent something else" in said) == (times > 1)
    assert (machine.snapshot(ID, repository.commit) / MANIFEST).exists() == (times == 1)


REFUSALS = {
    "wrong revision": (f"{ID}@nowhere", "someone/tiny has no revision nowhere"),
    "wrong commit": (f"{ID}@{'0' * 40}", f"has no revision {'0' * 40}"),
    "no repository": ("someone/else", "the hub has no someone/else, or it is private"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_the_hub_does_not_have_is_one_sentence(
    hub: FakeHub, machine: Machine, tiny_files: dict[str, bytes], refusal: str
) -> None:
    """The command ends with 1 and a cause that the user can act on."""
    hub.add(ID, tiny_files)
    model, sentence = REFUSALS[refusal]
    code, said = machine.models("pull", model)
    assert (code, sentence in said) == (1, True), said


def test_a_gated_repository_names_where_to_accept_its_terms(
    hub: FakeHub, machine: Machine, tiny_files: dict[str, bytes]
) -> None:
    """The sentence has the address, and how to log in."""
    hub.add(ID, tiny_files).is_gated = True
    code, said = machine.models("pull", ID)
    assert code == 1
    assert f"{ID} is gated: accept its terms at {hub.url}/{ID}" in said
    assert "HF_TOKEN" in said


def test_no_network_is_told_with_what_to_do(machine: Machine) -> None:
    """Neither a hub that cannot be reached nor offline mode is a trace."""
    code, said = machine.models("pull", ID, HF_ENDPOINT="http://127.0.0.1:9")
    assert (code, "http://127.0.0.1:9 cannot be reached" in said) == (1, True), said
    code, said = machine.models("pull", ID, HF_HUB_OFFLINE="1")
    assert (code, "HF_HUB_OFFLINE forbids" in said) == (1, True), said


@pytest.mark.parametrize(
    ("file", "instead"),
    [
        (UNET, "unet/diffusion_pytorch_model.bin is a pickle"),
        ("vae/diffusion_pytorch_model.safetensors", "is a variant"),
        ("model_index.json", "has no model_index.json"),
    ],
)
def test_a_repository_without_a_needed_file_is_refused_before_gigabytes_come(
    hub: FakeHub, machine: Machine, tiny_files: dict[str, bytes], file: str, instead: str
) -> None:
    """The missing file is named with what lies in its place, and no weights were asked for."""
    hub.add(ID, {path: content for path, content in tiny_files.items() if path != file})
    code, said = machine.models("pull", ID)
    assert (code, f"has no {file}" in said, instead in said) == (1, True, True), said
    assert not [path for path in hub.downloaded(ID) if path.endswith(".safetensors")]


@pytest.mark.slow
def test_a_file_that_changed_on_disk_is_named_and_got_anew(
    hub: FakeHub, machine: Machine, tiny_files: dict[str, bytes]
) -> None:
    """The check names it and ends with 1, the pull mends it; what was not altered stays."""
    repository = hub.add(ID, tiny_files)
    model = f"{ID}@{repository.commit}"
    assert machine.models("pull", model)[0] == 0
    weights = machine.snapshot(ID, repository.commit) / UNET
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.resolve().write_bytes(content)
    code, said = machine.models("check", model)
    assert (code, f"{UNET} is altered: its sha256 is another" in said) == (1, True), said
    hub.downloads.clear()
    assert machine.models("pull", model)[0] == 0
    assert hub.downloaded(ID) == {UNET}
    hub.repositories.clear()
    assert machine.models("pull", model)[0] == 0, "what is whole and pinned is not asked for"
    assert machine.models("check", model)[0] == 0
