"""Processes that learn together learn what one would from all rows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from models.training.loop.data_parallel import ALONE, Team, run_together
from tests.support.servers import wait_until

ROWS = torch.arange(24.0).view(6, 4)


def test_one_alone_has_all_rows_and_the_last_word() -> None:
    """A team of one shares nothing, waits for nobody and changes no gradient."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.ones(3)
    ALONE.average_gradients([parameter])
    torch.testing.assert_close(parameter.grad, torch.ones(3))
    torch.testing.assert_close(ALONE.share(ROWS), ROWS)
    assert ALONE.leads
    assert ALONE.agrees(answer=True)
    assert not ALONE.agrees(answer=False)


def test_rows_are_shared_without_rest_and_noise_differs() -> None:
    """Every row is somebody's and nobody's twice; no two members draw the same noise."""
    team = [Team(rank, 2) for rank in range(2)]
    told = torch.cat([member.share(ROWS) for member in team])
    torch.testing.assert_close(told.sort(0).values, ROWS)
    noises = []
    for member in team:
        member.seed(5)
        noises.append(torch.randn(4))
    assert not torch.equal(*noises)


def test_two_learn_what_one_learns_from_all_rows(tmp_path: Path) -> None:
    """Gradients become the mean over both, so weights stay equal; the leader's answer holds."""
    run_together(2, _learn, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = _net()
    torch.autograd.backward(alone(ROWS).square().mean())
    torch.testing.assert_close(first["gradient"], alone.weight.grad)
    torch.testing.assert_close(second["gradient"], alone.weight.grad)
    assert first["agreed"] == second["agreed"] == [True, False]


def test_a_fault_of_one_is_raised() -> None:
    """Nobody waits for ever for a member that has failed."""
    with pytest.raises(ProcessRaisedException):
        run_together(2, _fail)


def test_nobody_outlives_the_first_process(tmp_path: Path) -> None:
    """Killed in a shell's background, where SIGINT is ignored, it leaves no member behind."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from pathlib import Path; from models.training.loop.data_parallel import run_together\n"
        "from tests.training.loop.test_data_parallel import _wait\n"
        f"run_together(2, _wait, Path({str(tmp_path)!r}))"
    )
    first = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    members = [tmp_path / f"{rank}.pid" for rank in range(2)]
    wait_until(lambda: all(path.exists() for path in members), 60)
    first.kill()
    first.wait()
    wait_until(lambda: not any(_runs(int(path.read_text())) for path in members), 30)


def _runs(pid: int) -> bool:
    """Whether a process is there and no mere entry that nobody has taken note of."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait(team: Team, folder: Path) -> None:
    begun = folder / f"{team.rank}.begun"
    begun.write_text(str(os.getpid()))
    begun.rename(folder / f"{team.rank}.pid")
    time.sleep(600)


def _net() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 2)


def _learn(team: Team, folder: Path) -> None:
    net = _net()
    torch.autograd.backward(net(team.share(ROWS)).square().mean())
    team.average_gradients(net.parameters())
    agreed = [team.agrees(answer=team.leads), team.agrees(answer=not team.leads)]
    assert net.weight.grad is not None
    torch.save({"gradient": net.weight.grad, "agreed": agreed}, folder / f"{team.rank}.pt")


def _fail(team: Team) -> None:
    if not team.leads:
        raise ValueError("a planted fault")
    team.agrees(answer=True)
