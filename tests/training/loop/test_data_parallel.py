"""Data-parallel processes learn what one process learns from all rows."""

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

from models.training.loop.data_parallel import SINGLE_PROCESS, DataParallel, launch
from tests.support.servers import wait_until

ROWS = torch.arange(24.0).view(6, 4)


def test_single_process() -> None:
    """In a group of one, sharding, averaging and broadcasting change nothing."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.ones(3)
    SINGLE_PROCESS.average_gradients([parameter])
    torch.testing.assert_close(parameter.grad, torch.ones(3))
    torch.testing.assert_close(SINGLE_PROCESS.shard(ROWS), ROWS)
    assert SINGLE_PROCESS.is_main
    assert SINGLE_PROCESS.broadcast(flag=True)
    assert not SINGLE_PROCESS.broadcast(flag=False)


def test_shards_and_seeds() -> None:
    """Every row is in exactly one shard, and each process has different noise."""
    group = [DataParallel(rank, 2) for rank in range(2)]
    rows = torch.cat([process.shard(ROWS) for process in group])
    torch.testing.assert_close(rows.sort(0).values, ROWS)
    noises = []
    for process in group:
        process.seed(5)
        noises.append(torch.randn(4))
    assert not torch.equal(*noises)


def test_two_processes_learn_as_one(tmp_path: Path) -> None:
    """Both have the gradient of all rows, and both receive the main process's flag."""
    launch(2, _learn, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    net = _net()
    torch.autograd.backward(net(ROWS).square().mean())
    torch.testing.assert_close(first["gradient"], net.weight.grad)
    torch.testing.assert_close(second["gradient"], net.weight.grad)
    assert first["flags"] == second["flags"] == [True, False]


def test_failure_is_raised() -> None:
    """An exception in one process is raised, and the others do not wait for it."""
    with pytest.raises(ProcessRaisedException):
        launch(2, _fail)


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """They end after the first process is killed, also where a shell's job ignores SIGINT."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from pathlib import Path; from models.training.loop.data_parallel import launch\n"
        "from tests.training.loop.test_data_parallel import _wait\n"
        f"launch(2, _wait, Path({str(tmp_path)!r}))"
    )
    first = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    paths = [tmp_path / f"{rank}.pid" for rank in range(2)]
    wait_until(lambda: all(path.exists() for path in paths), 60)
    first.kill()
    first.wait()
    wait_until(lambda: not any(_is_running(int(path.read_text())) for path in paths), 30)


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait(group: DataParallel, folder: Path) -> None:
    path = folder / f"{group.rank}.started"
    path.write_text(str(os.getpid()))
    path.rename(folder / f"{group.rank}.pid")
    time.sleep(600)


def _net() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 2)


def _learn(group: DataParallel, folder: Path) -> None:
    net = _net()
    torch.autograd.backward(net(group.shard(ROWS)).square().mean())
    group.average_gradients(net.parameters())
    flags = [group.broadcast(flag=group.is_main), group.broadcast(flag=not group.is_main)]
    assert net.weight.grad is not None
    torch.save({"gradient": net.weight.grad, "flags": flags}, folder / f"{group.rank}.pt")


def _fail(group: DataParallel) -> None:
    if not group.is_main:
        raise ValueError("a planted fault")
    group.broadcast(flag=True)
