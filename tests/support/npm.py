"""Packages of npm that tests need, as their lock names them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def install(folder: Path) -> Path:
    """Return the packages of a folder's lock, which are installed first; skip without npm."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are needed")
    modules = folder / "node_modules"
    if not (modules / ".package-lock.json").exists():  # npm writes it last
        done = subprocess.run(
            ["npm", "ci"], cwd=folder, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"npm could not install what {folder} locks: {done.stderr}"
    return modules
