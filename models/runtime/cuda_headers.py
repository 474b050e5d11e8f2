"""CUDA's headers, for the C++ compiler that inductor calls.

What is compiled ahead of time is linked with torch's runtime, whose headers include CUDA's. torch
looks for a toolkit where CUDA_HOME says, beside nvcc and in /usr/local/cuda. NVIDIA's `base` images
and many rented machines have none, or one without headers; the wheels of the extra `cuda` hold all
of them, and the one of the runtime, which torch brings along, some.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from torch.utils import cpp_extension

_NEEDED = (
    "cuda.h",
    "cuda_runtime.h",
    "cuda_fp16.h",
    "cuda_fp8.h",
    "crt/host_config.h",
    "nv/target",
)
_USUAL = Path("/usr/local/cuda")


class NoToolkit(RuntimeError):
    """Nothing on this machine has all of CUDA's headers. Says how to get them."""

    def __init__(self) -> None:
        super().__init__(
            "CUDA's headers are missing, so nothing can be compiled: pip install "
            "'instant-refine[cuda]', or install the CUDA toolkit, or set REFINE_COMPILE=off"
        )


def find_toolkit() -> Path:
    """Return the first folder whose `include` has what is needed. Raises NoToolkit."""
    for home in _candidates():
        if all((home / "include" / name).is_file() for name in _NEEDED):
            return home
    raise NoToolkit


def use_toolkit() -> None:
    """Let torch find CUDA's headers, in this process and those that it starts. Raises NoToolkit."""
    home = str(find_toolkit())
    os.environ["CUDA_HOME"] = home
    cpp_extension.CUDA_HOME = home  # which was looked for at its import


def _candidates() -> Iterator[Path]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            yield Path(os.environ[name])
    if compiler := shutil.which("nvcc"):
        yield Path(compiler).parents[1]
    yield _USUAL
    wheels = importlib.util.find_spec("nvidia")  # one namespace for all of NVIDIA's wheels
    for folder in (wheels and wheels.submodule_search_locations) or ():
        yield from sorted(Path(folder).glob("cu[0-9]*"), reverse=True)
