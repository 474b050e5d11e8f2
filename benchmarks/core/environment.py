"""The conditions in every row: the machine, the versions and the code."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("torch", "diffusers", "pillow", "fastapi", "uvicorn")
_ROOT = Path(__file__).parents[2]
_CODE = ("models", "service", "benchmarks")
_RESULTS = ":(exclude)benchmarks/results"  # a new row does not change the code


def environment() -> dict[str, str | int]:
    """Return the conditions that hold for a whole run."""
    return {
        "commit": code_version(),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def code_version() -> str:
    """Return the commit, with a digest of the code if it is not exactly that commit's."""
    commit = _git("rev-parse", "--short", "HEAD") or "unknown"
    if commit != "unknown" and not _git("status", "--porcelain", "--", ".", _RESULTS):
        return commit
    digest = hashlib.sha256()
    for folder in _CODE:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return f"{commit}-dirty-{digest.hexdigest()[:8]}"


def _git(*arguments: str) -> str:
    try:
        ended = subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # a benchmark machine may have no git
        return ""
    return ended.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
