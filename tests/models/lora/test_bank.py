"""A LoRA per row: each row of one forward is as with its own adapter alone."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch._dynamo.testing import CompileCounter

from models.errors import CheckpointError
from models.loader import Adapter, CheckpointFiles, load_pipeline
from models.lora.bank import MAX_RANK, AdapterBank
from models.lora.parse import Lora, LowRank, fuse, read_lora
from models.pipeline import Pipeline
from models.runtime.aot import compile_package, load_package, package_path
from tests.support.engine_runs import load
from tests.support.loras import ATTENTION, EVERYWHERE, random_factors, write_lora

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> Pipeline:
    return load(tiny_checkpoint)


def make_loras(unet: nn.Module, count: int, folder: Path) -> dict[str, Lora]:
    """Adapters of different ranks, over linear layers and convolutions of 1 x 1 and 3 x 3."""
    return {
        f"lora-{seed}": read_lora(
            write_lora(
                folder / f"{seed}.safetensors",
                {"unet": random_factors(unet, EVERYWHERE, rank=2 + seed % 3, seed=seed)},
            ),
            {"unet": unet},
        )
        for seed in range(count)
    }


def inputs(num_rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(num_rows, 4, 16, 16, generator=generator),
        "timestep": torch.arange(num_rows) * 100 + 19,
        "encoder_hidden_states": torch.randn(num_rows, 77, 32, generator=generator),
        "timestep_cond": torch.randn(num_rows, 32, generator=generator),
    }


def predict(unet: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = unet(**given).sample
        return output


def adapted(unet: nn.Module, loras: dict[str, Lora], **options: Any) -> tuple[Any, AdapterBank]:
    unet = copy.deepcopy(unet)
    return unet, AdapterBank({"unet": unet}, loras, device=torch.device("cpu"), **options)


def test_rows_of_one_forward_have_adapters_of_their_own(pipeline: Pipeline, tmp_path: Path) -> None:
    """Each row equals its row of a UNet with its adapter merged into the weights."""
    loras = make_loras(pipeline.unet, 3, tmp_path)
    unet, bank = adapted(pipeline.unet, loras)
    names = ["lora-2", "", "lora-0", "lora-1", "lora-2", "unknown"]
    given = inputs(len(names))
    bank.select(names)
    together = predict(unet, given)
    plain = predict(pipeline.unet, given)
    for row, name in enumerate(names):
        merged = copy.deepcopy(pipeline.unet)
        fuse(loras.get(name, {}), {"unet": merged})
        own = {key: value[row : row + 1] for key, value in given.items()}
        torch.testing.assert_close(
            together[row : row + 1], predict(merged, own), atol=TOLERANCE, rtol=TOLERANCE
        )
        changed = float((together[row] - plain[row]).abs().max())
        assert (changed > 0.01) == (name in loras), "the adapter hardly shows: nothing is compared"


def test_rows_equal_pefts_adapter_names(pipeline: Pipeline, tmp_path: Path) -> None:
    """Peft's own forward with an adapter per row gives the same; it knows no batch of them."""
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    model: Any = get_peft_model(copy.deepcopy(pipeline.unet), config, adapter_name="one")
    model.add_adapter("two", config)
    model.eval().save_pretrained(tmp_path)
    roots = {"unet": pipeline.unet}
    loras = {
        name: read_lora(tmp_path / name / "adapter_model.safetensors", roots)
        for name in ("one", "two")
    }
    unet, bank = adapted(pipeline.unet, loras)
    given, names = inputs(3), ["one", "__base__", "two"]
    bank.select(names)
    with torch.no_grad():
        theirs = model(**given, adapter_names=names).sample
    torch.testing.assert_close(predict(unet, given), theirs, atol=TOLERANCE, rtol=TOLERANCE)


def test_without_an_adapter_nothing_changes(pipeline: Pipeline, tmp_path: Path) -> None:
    """A batch without any is the plain UNet's, to the bit, also after one with."""
    unet, bank = adapted(pipeline.unet, make_loras(pipeline.unet, 2, tmp_path))
    given = inputs(2)
    for names in (["", ""], ["lora-0", "lora-1"], ["", "unknown"]):
        bank.select(names)
        output = predict(unet, given)
    assert torch.equal(output, predict(pipeline.unet, given))


@pytest.mark.parametrize("seed", range(3))
def test_more_adapters_than_slots_take_turns(pipeline: Pipeline, tmp_path: Path, seed: int) -> None:
    """Over random batches of 7 adapters on 3 slots each row has its own, whoever was there."""
    loras = make_loras(pipeline.unet, 7, tmp_path)
    small, small_bank = adapted(pipeline.unet, loras, num_slots=3)
    large, large_bank = adapted(pipeline.unet, loras, num_slots=7)
    rng = random.Random(seed)
    for _ in range(12):
        names = [rng.choice([*loras, ""]) for _ in range(3)]
        given = inputs(3)
        small_bank.select(names)
        large_bank.select(names)
        torch.testing.assert_close(
            predict(small, given), predict(large, given), atol=TOLERANCE, rtol=TOLERANCE
        )
    with pytest.raises(ValueError, match="more adapters"):
        small_bank.select(list(loras)[:4])


def test_a_load_that_fails_leaves_every_other_adapter_its_slot(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without memory for one adapter, the next to come takes a free slot, and nobody else's."""
    loras = make_loras(pipeline.unet, 5, tmp_path)
    small, small_bank = adapted(pipeline.unet, loras, num_slots=3)
    large, large_bank = adapted(pipeline.unet, loras, num_slots=5)
    small_bank.select(["lora-0", "lora-1", "lora-2"])
    with monkeypatch.context() as patched:
        patched.setattr("models.lora.bank.to_device", _no_memory)
        with pytest.raises(torch.OutOfMemoryError):
            small_bank.select(["lora-3"])
    given, names = inputs(3), ["lora-1", "lora-2", "lora-3"]
    small_bank.select(["lora-3"])
    for bank in (small_bank, large_bank):
        bank.select(names)
    torch.testing.assert_close(
        predict(small, given), predict(large, given), atol=TOLERANCE, rtol=TOLERANCE
    )


def _no_memory(*_: object) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_new_adapter_compiles_nothing_anew(pipeline: Pipeline, tmp_path: Path) -> None:
    """One whole graph serves every adapter up to the rank, also those that take others' slots."""
    loras = make_loras(pipeline.unet, 5, tmp_path)
    unet, bank = adapted(pipeline.unet, loras, num_slots=2)
    counter = CompileCounter()
    compiled = torch.compile(unet, backend=counter, fullgraph=True)
    given = inputs(2)
    for names in (["lora-0", "lora-1"], ["lora-2", ""], ["lora-3", "lora-4"], ["", "lora-0"]):
        bank.select(names)
        torch.testing.assert_close(predict(compiled, given), predict(unet, given))
        assert counter.frame_count == 1, "a new adapter compiled a frame"


def test_a_rank_beyond_the_padding_is_refused() -> None:
    """All are padded to the largest rank, so that a huge one would slow every row down."""
    rank = MAX_RANK + 1
    layer = nn.Sequential(nn.Linear(4, 4))
    huge = {"unet.0": LowRank(torch.zeros(rank, 4), torch.zeros(4, rank))}
    with pytest.raises(CheckpointError, match="huge: a LoRA of rank 129"):
        AdapterBank({"unet": layer}, {"huge": huge}, device=torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, of its parts among each other
def test_a_package_reads_adapters_in_place(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Compiled ahead of time, one package serves any adapters of any rows, and none."""
    unet = load(tiny_checkpoint).unet
    adapters = {
        f"lora-{seed}": Adapter(
            write_lora(
                tmp_path / f"{seed}.safetensors",
                {"unet": random_factors(unet, ATTENTION, rank=2 + seed, seed=seed)},
            )
        )
        for seed in range(3)
    }
    pipeline = load_pipeline(
        CheckpointFiles(tiny_checkpoint),
        device="cpu",
        dtype=torch.float32,
        adapters=adapters,
        is_compiled=True,
    )
    ((forward, given),) = pipeline.forwards(64, 64, 2, encodes=False, decodes=False)
    path = package_path(tmp_path / "packages", forward.name, forward.module, given)
    compile_package(forward.module, given, path)
    run = load_package(path, forward.module)
    with torch.inference_mode():
        for names in (["lora-0", "lora-1"], ["lora-2", ""], ["", ""], ["lora-1", "lora-0"]):
            pipeline.adapters.select(names)
            torch.testing.assert_close(run(*given), forward.module(*given), atol=1e-5, rtol=1e-5)
