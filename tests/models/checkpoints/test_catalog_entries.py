"""Each row of the catalogue: exactly what the loader reads is pulled, and it loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from models.checkpoints.catalog import BUNDLED, load_catalog
from models.checkpoints.hub import local_folder
from models.checkpoints.manifest import NAME
from models.checkpoints.sources import LORA_FILE, Source, sources_of
from models.loader import CheckpointFiles, load_pipeline
from tests.models.checkpoints.conftest import Machine, decoys
from tests.support.checkpoints import (
    sdxl_unet,
    write_checkpoint,
    write_plain_checkpoint,
    write_sdxl_checkpoint,
    write_taesd,
)
from tests.support.fake_hub import FakeHub
from tests.support.loras import EVERYWHERE, random_factors, write_lora

_BASE = {
    "lcm-dreamshaper-v7": write_checkpoint,
    "sd15-lcm-lora": write_plain_checkpoint,
    "lcm-sdxl": write_sdxl_checkpoint,
    "sdxl-lcm-lora": write_sdxl_checkpoint,
}
_OWN = {
    "model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json", "text_encoder/config.json",
    "text_encoder/model.safetensors", "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}  # fmt: skip
_UNET = {"unet/config.json", "unet/diffusion_pytorch_model.safetensors"}
_SECOND = {
    "tokenizer_2/tokenizer.json", "tokenizer_2/tokenizer_config.json",
    "text_encoder_2/config.json", "text_encoder_2/model.safetensors",
}  # fmt: skip
_PART = {"config.json", "diffusion_pytorch_model.safetensors"}
WANTED = {
    "lcm-dreamshaper-v7": {"": _OWN | _UNET},
    "sd15-lcm-lora": {"": _OWN | _UNET, "tiny": _PART, "lora": {LORA_FILE}},
    "lcm-sdxl": {"": _OWN | _SECOND, "unet": _PART, "tiny": _PART},
    "sdxl-lcm-lora": {"": _OWN | _SECOND | _UNET, "tiny": _PART, "lora": {LORA_FILE}},
}


def write_source(folder: Path, name: str, source: Source) -> None:
    """Write what a source of a row has on the hub, in tiny."""
    if source.part == "unet":
        sdxl_unet(time_cond_proj_dim=32).save_pretrained(folder)
    elif source.part == "tiny":
        write_taesd(folder)
    elif source.part == "lora":
        base = _BASE[name](folder.with_name("base"))
        unet = UNet2DConditionModel.from_pretrained(base / "unet")
        folder.mkdir()
        factors = {"unet": random_factors(unet, EVERYWHERE, rank=3)}
        write_lora(folder / LORA_FILE, factors, "kohya", 2.0)
    else:
        _BASE[name](folder)
        for copy in folder.glob("tokenizer_2/*"):  # else the cache would keep it once for both
            copy.write_text(copy.read_text() + "\n")
    for path, content in decoys().items():
        (folder / path).parent.mkdir(exist_ok=True)
        if not (folder / path).exists():
            (folder / path).write_bytes(content)


def test_every_row_is_tested() -> None:
    """A new row needs its line here."""
    rows = [row.name for row in load_catalog().values() if row.source != BUNDLED]
    assert rows == list(WANTED)


@pytest.mark.parametrize("name", WANTED)
def test_a_row_pulls_what_is_loaded_and_no_more(
    name: str, hub: FakeHub, machine: Machine, tmp_path: Path
) -> None:
    """At the pinned commits, without the base's UNet where another stands in for it."""
    sources = sources_of(load_catalog()[name])
    for source in sources:
        folder = tmp_path / f"published-{source.part}"
        write_source(folder, name, source)
        pinned = source.revision if source.revision != "main" else ""
        hub.add(source.place, folder, commit=pinned or "")
    code, said = machine.models("pull", name)
    assert code == 0, said
    places = {}
    for source in sources:
        commit = hub.repositories[source.place].commit
        pulled = machine.pulled(source.place, commit) - {NAME}
        assert pulled == hub.downloaded(source.place) == WANTED[name][source.part]
        places[source.part] = source.path_in(machine.snapshot(source.place, commit))
    files = CheckpointFiles(places.pop(""), **places)
    assert load_pipeline(files, device="cpu", dtype=torch.float32).latent_shape(64, 64)


@pytest.mark.slow
def test_rows_of_one_base_share_what_is_pulled_and_are_whole_each(
    hub: FakeHub, machine: Machine, tmp_path: Path
) -> None:
    """The second row gets the UNet alone that the first left out; both check well after it."""
    for name in ("lcm-sdxl", "sdxl-lcm-lora"):
        for source in sources_of(load_catalog()[name]):
            if source.place not in hub.repositories:
                folder = tmp_path / f"{name}-{source.part}"
                write_source(folder, name, source)
                hub.add(source.place, folder, commit=(source.revision or "").replace("main", ""))
    base = load_catalog()["lcm-sdxl"].source
    assert machine.models("pull", "lcm-sdxl")[0] == 0
    assert machine.models("check", "sdxl-lcm-lora")[0] == 1
    hub.downloads.clear()
    code, said = machine.models("pull", "sdxl-lcm-lora")
    assert code == 0, said
    assert hub.downloaded(base) == _UNET
    assert machine.models("check", "lcm-sdxl")[0] == 0
    assert machine.models("check", "sdxl-lcm-lora")[0] == 0


def test_pocket_needs_no_hub() -> None:
    """The bundled row has a folder at once."""
    assert (local_folder(load_catalog()["pocket"]) / "model_index.json").exists()
