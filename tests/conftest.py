"""What the tests share: tiny checkpoints, made once a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

# Tiny models gain nothing from threads, and lose much where other work shares the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reached for the hub would hang, not fail
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Structlog's own default draws each trace with its variables, which takes seconds.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with an `AutoencoderTiny`."""
    from tests.checkpoints import write_checkpoint  # noqa: PLC0415 - most tests need no torch

    return write_checkpoint(tmp_path_factory.mktemp("tiny"), vae="tiny")


@pytest.fixture(scope="session")
def kl_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with an `AutoencoderKL`, which samples a posterior."""
    from tests.checkpoints import write_checkpoint  # noqa: PLC0415 - most tests need no torch

    return write_checkpoint(tmp_path_factory.mktemp("kl"), vae="kl")
