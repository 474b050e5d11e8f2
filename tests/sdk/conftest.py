"""What both SDKs' tests share; their server is that of `tests/conftest.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import npm


@pytest.fixture(scope="session")
def modules() -> Path:
    """The folder with the TypeScript SDK."""
    return npm.install(Path(__file__).parent)
