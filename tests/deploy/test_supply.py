"""What the service is built on: versions without the faults that are known of older ones."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FLOORS = {
    "pillow": "13.0.0", "starlette": "1.3.1", "diffusers": "0.42.1", "torch": "2.10", "h11": "0.16",
    "ray": "2.52",
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


@pytest.mark.parametrize(
    ("script", "is_fine", "is_audited"),
    [
        ('echo "{}" > "$REPORT"; exit 0', True, True),
        ('echo "{}" > "$REPORT"; exit 1', False, True),
        ("echo not found on PyPI >&2; exit 1", False, False),
    ],
    ids=["no faults", "faults", "no list"],
)
def test_an_audit_that_did_not_happen_says_so(
    tmp_path: Path, script: str, *, is_fine: bool, is_audited: bool
) -> None:
    """`make audit` fails for faults and for a list that does not answer, and tells which it was."""
    fake = tmp_path / "bin" / "pip-audit"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\nREPORT={tmp_path}/report.json\n{script}\n")
    fake.chmod(0o755)
    ended = subprocess.run(
        ["make", "audit", f"AUDIT={fake.parent}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode == 0) == is_fine
    assert ("NOTHING WAS AUDITED" in ended.stderr) != is_audited
    assert ("report.json" in ended.stdout) == is_audited


def test_the_gate_asks_no_list_of_faults() -> None:
    """What CI runs needs no advisory list: neither the gate nor its targets name the audit."""
    gate = (ROOT / ".ci" / "run").read_text()
    targets = [line.split()[1] for line in gate.splitlines() if line.startswith("make ")]
    assert targets == ["check", "test", "test-slow"]
    planned = subprocess.run(
        ["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "pytest" in planned
    assert "audit" not in planned
