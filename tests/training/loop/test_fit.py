"""The learning rate within a budget."""

from __future__ import annotations

import pytest

from models.training.loop.fit import Budget


def test_budget() -> None:
    """The factor rises over the warm-up steps, and a spent budget has the smallest."""
    budget = Budget(60, warmup_steps=10)
    first = budget.factor
    budget.steps = 9
    assert first < budget.factor == pytest.approx(1.0)
    spent = Budget(0)
    spent.steps = 1000
    assert spent.is_spent
    assert spent.factor == pytest.approx(0.05)
