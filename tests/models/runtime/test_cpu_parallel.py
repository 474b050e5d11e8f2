"""Rows dealt out to cores come back as if they had been run together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from models.lora.bank import AdapterBank
from models.pipeline import Pipeline
from models.runtime.cpu_parallel import deal, local_rows, shares_of
from models.runtime.forward import Forward
from tests.models.lora.test_bank import make_loras
from tests.support.engine_runs import load


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_cores", [1, 2, 3, 16])
def test_every_row_is_dealt_once_and_evenly(num_cores: int) -> None:
    """Shares follow one another, none is empty, and none has two rows more than another."""
    for num_rows in range(1, 20):
        shares = shares_of(num_rows, num_cores)
        dealt = [row for s in shares for row in range(s.first, s.first + s.count)]
        assert dealt == list(range(num_rows))
        counts = {share.count for share in shares}
        assert len(shares) == min(num_rows, num_cores)
        assert 0 < max(counts) <= min(counts) + 1


def test_shares_run_at_once_on_a_core_each() -> None:
    """Both shares meet in the function, which only happens if they run at the same time."""
    meeting = threading.Barrier(2, timeout=20)
    threads: dict[int, int] = {}

    def function(rows: torch.Tensor) -> torch.Tensor:
        meeting.wait()
        threads[threading.get_ident()] = torch.get_num_threads()
        return rows + len(rows)

    rows = torch.arange(3.0)[:, None]
    assert deal(function, (rows,)).flatten().tolist() == [2, 3, 3]
    assert list(threads.values()) == [1, 1]
    assert torch.get_num_threads() == 2


def test_one_row_has_all_cores() -> None:
    """A lone row stays on the thread that calls, with its threads."""
    seen = []

    def function(rows: torch.Tensor) -> torch.Tensor:
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return rows

    deal(function, (torch.ones(1, 1),))
    assert seen == [(threading.get_ident(), 2)]


def test_a_failing_share_fails_the_call_once_all_have_ended() -> None:
    """The error comes out, and not before the other share has stopped reading its rows."""
    ended = threading.Event()

    def function(rows: torch.Tensor) -> torch.Tensor:
        if rows[0, 0] == 0:
            raise ValueError("a bad row")
        time.sleep(0.2)
        ended.set()
        return rows

    with pytest.raises(ValueError, match="a bad row"):
        deal(function, (torch.arange(2.0)[:, None],))
    assert ended.is_set()


def test_rows_beside_the_inputs_are_dealt_too() -> None:
    """What a share reads by `local_rows` are its own rows, two for each where guidance doubles."""
    table = torch.arange(64)

    def function(rows: torch.Tensor) -> torch.Tensor:
        return local_rows(table, 2 * len(rows)).view(len(rows), 2)

    assert deal(function, (torch.zeros(3, 1),)).flatten().tolist() == list(range(6))
    assert local_rows(table, 5).tolist() == list(range(5))


def test_dealt_rows_keep_their_adapters(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Rows with adapters of their own, dealt to two cores, equal each row alone."""
    pipeline: Pipeline = load(tiny_checkpoint)
    unet = pipeline.unet
    loras = make_loras(unet, 3, tmp_path)
    bank = AdapterBank({"unet": unet}, loras, device=torch.device("cpu"))
    names = ["lora-2", "", "lora-0", "lora-1", "lora-2"]
    forward, rows = Forward("denoise", _Unet(unet)), _rows(len(names))
    bank.select(names)
    with torch.inference_mode():
        together = forward(*rows)
        for place, name in enumerate(names):
            bank.select([name])
            alone = forward(*(part[place : place + 1] for part in rows))
            torch.testing.assert_close(together[place : place + 1], alone, atol=1e-4, rtol=1e-4)


class _Unet(nn.Module):
    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        latents, timesteps, text, cond = inputs
        output: torch.Tensor = self.unet(latents, timesteps, text, timestep_cond=cond).sample
        return output


def _rows(count: int) -> tuple[torch.Tensor, ...]:
    lot = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, 4, 16, 16, generator=lot),
        torch.arange(count) * 100 + 19,
        torch.randn(count, 77, 32, generator=lot),
        torch.randn(count, 32, generator=lot),
    )
