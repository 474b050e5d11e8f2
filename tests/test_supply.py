"""What the service is built on: versions without the faults that are known of older ones."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parent.parent
FLOORS = {
    "pillow": "13.0.0", "starlette": "1.3.1", "diffusers": "0.42.1", "torch": "2.10", "h11": "0.16",
}  # fmt: skip


@pytest.mark.parametrize("name", FLOORS)
def test_nothing_is_older_than_its_last_known_fault(name: str) -> None:
    """What is installed, what is pinned for it, and what the image locks are at least the floor."""
    floor = Version(FLOORS[name])
    assert Version(version(name)) >= floor
    for file in ("constraints.txt", "requirements-cuda.lock"):
        lines = (ROOT / file).read_text("utf-8").lower().splitlines()
        pins = [
            line.partition("==")[2].split()[0] for line in lines if line.startswith(f"{name}==")
        ]
        assert all(Version(pin.split("+")[0]) >= floor for pin in pins)
        assert pins or name == "h11"
