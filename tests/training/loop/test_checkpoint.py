"""Resumable state."""

from __future__ import annotations

from pathlib import Path

import torch

from models.training.loop.checkpoint import (
    NetworkState,
    load_network,
    load_state,
    save_state,
)


def test_state_file(tmp_path: Path) -> None:
    """Tensors and facts survive in 16 bits, and no temporary file remains."""
    path = tmp_path / "deep" / "state.safetensors"
    save_state(path, {"a": torch.arange(4.0), "n": torch.tensor(3)}, seen=12)
    tensors, facts = load_state(path)
    torch.testing.assert_close(tensors["a"], torch.arange(4.0))
    assert tensors["n"].item() == 3
    assert facts["seen"] == "12"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_network_state_resumes(tmp_path: Path) -> None:
    """Weights, average and count resume; `load_network` returns the average."""
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    state = NetworkState(path, torch.nn.Linear(2, 2))
    assert not state.is_resumed
    start = state.net.weight.detach().clone()
    with torch.no_grad():
        state.net.weight.add_(1)
    state.count(8)
    state.save()
    resumed = NetworkState(path, torch.nn.Linear(2, 2))
    assert resumed.is_resumed
    assert resumed.seen == 8
    torch.testing.assert_close(resumed.net.weight, start + 1, atol=1e-3, rtol=1e-3)
    average = load_network(path, torch.nn.Linear(2, 2)).weight
    torch.testing.assert_close(average, resumed.average.tensors["weight"])
    assert ((average > start) & (average < start + 1)).all()
