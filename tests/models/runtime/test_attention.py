"""Attention by the fastest kernel, and its projections in one product: the same numbers, sooner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends

from models.loader import CheckpointFiles, load_pipeline
from models.runtime.aot import compile_package, load_package
from models.runtime.attention import Call, attending_by, fuse_projections, pick_backend
from tests.support.engine_runs import load, make_engine, make_job, picture, run

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of its parts among each other

FLASH, MATH = SDPBackend.FLASH_ATTENTION, SDPBackend.MATH


class Attending(nn.Module):
    """Rows [B, 4, L, 8] that attend to themselves twice and to half of themselves once."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        (hidden,) = inputs
        for _ in range(2):
            hidden = functional.scaled_dot_product_attention(hidden, hidden, hidden)
        half = hidden[:, :, ::2]
        return functional.scaled_dot_product_attention(hidden, half, half, is_causal=False)


def rows(count: int = 1) -> tuple[torch.Tensor]:
    return (torch.randn(count, 4, 16, 8),)


def allowed() -> set[SDPBackend]:
    """Return what may compute attention now."""
    return set(_cur_sdpa_kernel_backends())


def timer(flash_s: Callable[[int], float], math_s: float) -> Callable[[Call], float]:
    """A clock that tells by what is allowed, and by the number of the call, how long it took."""
    calls = {FLASH: 0, MATH: 0}

    def time_s(call: Call) -> float:
        call()
        (backend,) = allowed()
        is_flash = backend is FLASH
        calls[FLASH if is_flash else MATH] += 1
        return flash_s(calls[FLASH]) if is_flash else math_s

    return time_s


def test_the_fastest_backend_is_picked() -> None:
    """By the sum over a forward: each size is timed once and counts as often as it is asked for."""
    module = Attending()
    assert pick_backend(module, rows(), timer(lambda _: 1.0, 2.0)) is FLASH
    assert pick_backend(module, rows(), timer(lambda _: 2.0, 1.0)) is MATH
    # Two calls of 1 s and one of 3 s are 5 s, less than 3 x 1.8 s; of each size one, they are more.
    assert pick_backend(module, rows(), timer(lambda n: (1.0, 3.0)[n - 1], 1.8)) is FLASH
    # Two calls of 3 s and one of 1 s are 7 s, more than 3 x 2.2 s; of each size one, they are less.
    assert pick_backend(module, rows(), timer(lambda n: (3.0, 1.0)[n - 1], 2.2)) is MATH


def test_a_backend_that_cannot_compute_a_forward_is_not_picked() -> None:
    """As flash attention where heads are too wide: it is no fault, and another is picked."""

    def refuse(_: int) -> float:
        raise RuntimeError("No available kernel. Aborting execution.")

    assert pick_backend(Attending(), rows(), timer(refuse, 9.0)) is MATH
    assert pick_backend(Attending(), rows(), lambda _: refuse(1)) is None, "torch's own choice"


def test_a_forward_without_attention_asks_for_none() -> None:
    """Nothing is timed, and torch's own choice stays."""
    assert pick_backend(nn.Conv2d(3, 4, 3), (torch.randn(1, 3, 8, 8),)) is None
    with attending_by(None):
        assert allowed() >= {FLASH, MATH}


def test_fused_projections_make_the_same_picture(tiny_checkpoint: Path) -> None:
    """One product for three, or for two beside a query of its own; the old weights are gone."""
    plain = load(tiny_checkpoint)
    fused = load_pipeline(
        CheckpointFiles(tiny_checkpoint), device="cpu", dtype=torch.float32, fuses_projections=True
    )
    names = {name for name, _ in fused.unet.named_parameters()}
    assert any(name.endswith("attn1.to_qkv.weight") for name in names)
    assert any(name.endswith("attn2.to_q.weight") for name in names)
    assert not any(name.endswith(("to_k.weight", "attn1.to_q.weight")) for name in names)
    count = sum(parameter.numel() for parameter in plain.unet.parameters())
    assert sum(parameter.numel() for parameter in fused.unet.parameters()) == count
    assert not any(parameter.requires_grad for parameter in fused.unet.parameters())
    job = make_job(guidance=8.0)
    made = [picture(run(make_engine(one), [job])[job.id]).astype(int) for one in (plain, fused)]
    assert abs(made[0] - made[1]).max() <= 1


def test_an_adapted_attention_keeps_its_projections(tiny_checkpoint: Path) -> None:
    """An adapter finds its layer by its name; the attention beside it is fused all the same."""
    unet = load(tiny_checkpoint).unet
    layers = [name for name, _ in unet.named_modules() if name.endswith(".to_v")]
    fuse_projections(unet, {f"unet.{layers[0]}"})
    left = [name for name, _ in unet.named_modules() if name.endswith(".to_v")]
    assert left == layers[:1]


@pytest.mark.slow
@pytest.mark.parametrize("picked", [FLASH, MATH])
def test_a_package_has_the_attention_that_was_picked(
    picked: SDPBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice is made when a forward is compiled, lies in its package, and changes no number."""
    monkeypatch.setattr("models.runtime.aot.pick_backend", lambda *_: picked)
    module, path = Attending(), tmp_path / "attending.pt2"
    compile_package(module, rows(2), path)
    with ZipFile(path) as package:
        code = b"".join(package.read(name) for name in package.namelist() if name.endswith(".cpp"))
    assert (b"scaled_dot_product_flash_attention" in code) == (picked is FLASH)
    made = load_package(path, module)
    with torch.inference_mode():
        for count in (2, 3, 7):
            given = rows(count)
            torch.testing.assert_close(made(*given), module(*given))
