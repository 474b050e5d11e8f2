"""A request's time through the service: the service's own benchmark, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

_ROOT = Path(__file__).parents[3]
_TRACE = "4 steps at 512"


def median_seconds(folder: Path, seconds: float) -> float:
    """Return the p50 of one user who asks again when answered, 512 x 512 in four steps.

    A checkpoint's folder is served on the CPU and warmed up first. Raises CalledProcessError
    where it cannot be served, and ValueError if there is any answer but a picture.
    """
    with TemporaryDirectory() as results:
        words = ["--parts", "load", "--users", "1", "--shares", "--seconds", str(seconds)]
        words += ["--checkpoint", str(folder.resolve()), "--device", "cpu", "--results", results]
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.service", *words],
            cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    rows = json.loads(ended.stdout.splitlines()[-1])["rows"]
    (row,) = (row for row in rows if row["trace"] == _TRACE)
    if row["answers"] != f"{row['requests']} x 200":
        raise ValueError(f"the service answered {row['answers']}")
    return float(row["p50_ms"]) / 1000
