"""What a checkpoint takes of memory, told before it is loaded, against what is there once it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from models.errors import CheckpointError
from models.loader import Adapter, CheckpointFiles, load_pipeline
from models.memory_estimate import Footprint, free_host_bytes
from models.pipeline import Pipeline
from service.engine import builder as loading
from service.settings import EngineSettings
from tests.support.checkpoints import sdxl_unet, write_sdxl_checkpoint, write_taesd
from tests.support.loras import EVERYWHERE, Naming, random_factors, write_lora


def loaded_bytes(pipeline: Pipeline) -> int:
    """The bytes of all parameters and buffers of a pipeline, each once."""
    roots: list[Any] = [
        pipeline.unet,
        *(autoencoder.vae for autoencoder in pipeline.autoencoders.values()),
        *pipeline.prompts.encoders,
    ]
    tensors = {id(t): t for root in roots for t in [*root.parameters(), *root.buffers()]}
    return sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_parts_that_are_loaded_are_counted_and_no_others(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    """SDXL with another UNet and a tiny autoencoder: its own UNet and a safety checker count not.

    Its autoencoder stays in fp32 where 16 bits overflow, and counts so.
    """
    folder = write_sdxl_checkpoint(tmp_path / "sdxl")
    shutil.copytree(folder / "text_encoder", folder / "safety_checker")
    parts = {"unet": tmp_path / "unet", "tiny": write_taesd(tmp_path / "tiny")}
    sdxl_unet(time_cond_proj_dim=32).save_pretrained(parts["unet"])
    need = Footprint("x", folder, parts).need(dtype.itemsize)
    pipeline = load_pipeline(CheckpointFiles(folder, **parts), device="cpu", dtype=dtype)
    assert pipeline.autoencoders["full"].vae.dtype == torch.float32
    assert need.weights_bytes == pytest.approx(loaded_bytes(pipeline), rel=0.01)
    assert need.adapters_bytes == 0


def test_adapters_are_counted_by_their_places(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A LoRA takes its factors once for every place that it may be put into."""
    unet = UNet2DConditionModel.from_pretrained(tiny_checkpoint / "unet")
    factors = {"unet": random_factors(unet, EVERYWHERE, rank=3)}
    lora = write_lora(tmp_path / "lora.safetensors", factors, "diffusers")
    files = CheckpointFiles(tiny_checkpoint)
    bare = load_pipeline(files, device="cpu", dtype=torch.float32)
    adapted = load_pipeline(
        files, device="cpu", dtype=torch.float32, adapters={"INK": Adapter(lora)}
    )
    need = Footprint("x", tiny_checkpoint, adapters=[lora], num_slots=9).need(4)
    taken = loaded_bytes(adapted) - loaded_bytes(bare)
    assert need.adapters_bytes == pytest.approx(taken, rel=0.05)


def test_adapters_of_other_layers_and_ranks_are_counted_together(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Every layer that any of them changes has the largest rank of all; a misfit has no place."""
    unet = UNet2DConditionModel.from_pretrained(tiny_checkpoint / "unet")
    convolutions = [name for name in EVERYWHERE if "conv" in name]
    linear = [name for name in EVERYWHERE if "conv" not in name]
    assert convolutions
    assert linear
    files = {}
    given: list[tuple[str, list[str], int, Naming]] = [
        ("INK", linear, 6, "diffusers"),
        ("OIL", convolutions, 2, "kohya"),
        ("WAX", linear, 1, "kohya"),
    ]
    for name, targets, rank, naming in given:
        factors = {"unet": random_factors(unet, targets, rank=rank)}
        files[name] = write_lora(tmp_path / f"{name}.safetensors", factors, naming)
    bare, adapted = (
        load_pipeline(
            CheckpointFiles(tiny_checkpoint), device="cpu", dtype=torch.float32, adapters=adapters
        )
        for adapters in ({}, {name: Adapter(path) for name, path in files.items()})
    )
    stranger = {"unet": {"nowhere.proj": (torch.zeros(64, 8), torch.zeros(8, 64))}}
    paths = [*files.values(), write_lora(tmp_path / "stranger.safetensors", stranger)]
    need = Footprint("x", tiny_checkpoint, adapters=paths, num_slots=9).need(4)
    taken = loaded_bytes(adapted) - loaded_bytes(bare)
    assert need.adapters_bytes == pytest.approx(taken, rel=0.05)


def test_a_damaged_file_is_named_with_its_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Without a manifest, too: of several checkpoints it is plain which is meant."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "hurt"))
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    settings = EngineSettings(models=(str(tiny_checkpoint), str(folder)), device="cpu")
    with pytest.raises(CheckpointError, match=r"^hurt: vae/.*\.safetensors is cut short"):
        loading.load_pipelines(settings)


def free_of(bytes_free: int) -> Any:
    return lambda: bytes_free


def test_checkpoints_that_do_not_fit_together_are_refused_with_numbers(
    tiny_checkpoint: Path, kl_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each takes, what a picture does, what that makes and what is free; a byte decides."""
    needs = [Footprint("x", folder).need(4) for folder in (tiny_checkpoint, kl_checkpoint)]
    exact = sum(need.resident_bytes for need in needs) + max(need.working_bytes for need in needs)
    settings = EngineSettings(
        models=(str(tiny_checkpoint), str(kl_checkpoint)), device="cpu", dtype="float32"
    )
    monkeypatch.setattr(loading, "free_host_bytes", free_of(exact))
    assert len(loading.load_pipelines(settings)) == 2
    monkeypatch.setattr(loading, "free_host_bytes", free_of(exact - 1))
    with pytest.raises(CheckpointError) as refused:
        loading.load_pipelines(settings)
    sentence = str(refused.value)
    for folder in (tiny_checkpoint, kl_checkpoint):
        assert folder.name in sentence
    assert f"make {exact / 1e9:.2f} GB in torch.float32, and cpu has" in sentence
    assert "serve fewer checkpoints" in sentence


def test_a_gpu_is_asked_for_its_own_memory_and_the_host_for_what_passes(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By estimate, since there need be no GPU: either can be the one that is too small."""
    monkeypatch.setattr(loading, "_place", lambda _: ("cuda", torch.float16))
    settings = EngineSettings(model=str(tiny_checkpoint))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 2000))
    with pytest.raises(CheckpointError, match=r"in torch.float16, and cuda has 0.00 GB free"):
        loading.load_pipelines(settings)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 40, 1 << 40))
    monkeypatch.setattr(loading, "free_host_bytes", free_of(1000))
    with pytest.raises(CheckpointError, match="pass through this machine's own memory"):
        loading.load_pipelines(settings)


def test_the_second_gpu_is_the_one_of_its_process(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events and graphs are made where the engine's tensors are, not on the first GPU."""
    chosen: list[str] = []
    monkeypatch.setattr(loading, "_place", lambda _: ("cuda:1", torch.float16))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 2000))
    with pytest.raises(CheckpointError, match=r"cuda:1 has 0\.00 GB free"):
        loading.load_pipelines(EngineSettings(model=str(tiny_checkpoint)))
    assert chosen == ["cuda:1"]


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most that tensors took at once while something ran, as torch's allocator saw it."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        work()
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    peak: int = max(accumulate(event.nbytes() for event in events))
    return peak


def test_decoding_the_largest_picture_stays_within_the_estimate(
    tiny_checkpoint: Path, kl_checkpoint: Path
) -> None:
    """At 1024 x 1024, for both kinds of autoencoder; and the estimate is not wildly above it."""
    for folder in (tiny_checkpoint, kl_checkpoint):
        pipeline = load_pipeline(CheckpointFiles(folder), device="cpu", dtype=torch.float32)
        latents = torch.zeros(1, *pipeline.latent_shape(1024, 1024))
        taken = peak_bytes(partial(pipeline.decode_latents, latents))
        estimated = Footprint("x", folder).need(4).working_bytes
        assert 0.4 < taken / estimated < 1


def test_a_batch_of_pictures_counts_as_what_it_decodes_at_once(tiny_checkpoint: Path) -> None:
    """Eight rows of 512 x 512 are two of the largest; more than four of those share no call."""
    assert [loading._decoded_pixels(size) / 1024**2 for size in (1, 4, 8, 64)] == [1, 1, 2, 4]
    one, two = (
        Footprint("x", tiny_checkpoint, num_pixels=count * 1024**2).need(4) for count in (1, 2)
    )
    assert two.working_bytes == 2 * one.working_bytes


CGROUPS = {
    "v2": ({"memory.max": "5000", "memory.current": "4000"}, "memory.stat", "inactive_file"),
    "v1": (
        {"memory/memory.limit_in_bytes": "5000", "memory/memory.usage_in_bytes": "4000"},
        "memory/memory.stat",
        "total_inactive_file",
    ),
}


@pytest.mark.parametrize("version", CGROUPS)
def test_a_containers_limit_counts(version: str, tmp_path: Path) -> None:
    """What the container may still take, with the caches that can be dropped for it."""
    files, statistics, cache = CGROUPS[version]
    (tmp_path / "memory").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content + "\n")
    (tmp_path / statistics).write_text(f"anon 1\n{cache} 700\n")
    assert free_host_bytes(tmp_path) == 1700


def test_a_machine_without_a_limit_has_what_is_free(tmp_path: Path) -> None:
    """`max` is no limit, and neither is the lack of the files."""
    assert free_host_bytes(tmp_path) > 1 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert free_host_bytes(tmp_path) > 1 << 20
