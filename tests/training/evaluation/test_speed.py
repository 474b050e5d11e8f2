"""The latency through a running service."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from models.training.evaluation.speed import median_latency
from tests.whole_service.test_service import served


@pytest.mark.slow
def test_latency_through_the_service(tiny_checkpoint: Path) -> None:
    """A service of a tiny checkpoint returns images alone, within a minute each."""
    with served(tiny_checkpoint, REFINE_DEVICE="cpu") as service:
        assert 0 < median_latency(service.url, 2.0) < 60


def test_latency_without_a_service() -> None:
    """Without a service at the URL an error is raised, and no latency is returned."""
    with pytest.raises(subprocess.CalledProcessError):
        median_latency("http://127.0.0.1:9", 0.2)
