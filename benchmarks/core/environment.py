"""What stands beside every number: the machine, the versions, the code."""

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
_MEASURED = ":(exclude)benchmarks/results"  # a kept row leaves the code what it was


def conditions() -> dict[str, str | int]:
    """Return the conditions of a run, to be committed beside its rows."""
    return {
        "commit": code_version(),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def code_version() -> str:
    """Return the commit; where the code is another one, or none is known, its digest too."""
    commit = _git("rev-parse", "--short", "HEAD") or "unknown"
    is_clean = commit != "unknown" and not _git("status", "--porcelain", "--", ".", _MEASURED)
    return commit if is_clean else f"{commit}-dirty-{_digest()}"


def _git(*words: str) -> str:
    try:
        ended = subprocess.run(
            ["git", *words], cwd=_ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # a machine that measures may have no git
        return ""
    return ended.stdout.strip()


def _digest() -> str:
    digest = hashlib.sha256()
    for folder in _CODE:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


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
