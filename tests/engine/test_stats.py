"""What an engine tells of itself."""

from __future__ import annotations

import torch

from service.engine.stats import num_traced


def test_what_is_traced_in_this_process_is_counted() -> None:
    """A graph that torch traces to compile it counts, a call of what is compiled does not."""
    before = num_traced()
    doubled = torch.compile(lambda x: 2 * x, backend="eager")
    doubled(torch.ones(3))
    assert num_traced() == before + 1
    doubled(torch.ones(3))
    assert num_traced() == before + 1
