"""Forwards compiled ahead of time, and kept as packages that the next start loads in a moment.

A forward is exported as a whole graph, with any number of rows from 2 on (one row is a package of
its own), and compiled by inductor. A package holds code and no weights: it reads those of the
module that is loaded, so that checkpoints of one architecture share it, and adapters may change in
place. Nothing is traced in the process that serves: it never waits, and never recompiles.

Sources: torch.export and AOTInductor of the PyTorch documentation.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch._inductor import aoti_compile_and_package, aoti_load_package
from torch.export import Dim, export

from models.errors import CheckpointError
from models.runtime.attention import attending_by, pick_backend
from models.runtime.cuda_headers import use_toolkit

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

MAX_ROWS = {"cpu": 15, "cuda": 64}
"""A package's most rows, by the kind of device: from 16 on a CPU's convolutions are other ones."""

_SETTINGS: dict[str, Any] = {"aot_inductor.package_constants_in_so": False}


def package_path(
    folder: Path, name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]
) -> Path:
    """Return where the package of a forward for inputs of these sizes is kept."""
    rows = "1" if len(inputs[0]) == 1 else "n"
    sizes = [(list(tensor.shape[1:]), str(tensor.dtype)) for tensor in inputs]
    parts = [rows, sizes, _architecture(module), _platform(inputs[0].device)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return folder / f"{name}-{digest}.pt2"


def compile_package(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    path: Path,
    *,
    picks_attention: bool = True,
    autotunes: bool = False,
) -> None:
    """Compile a forward for inputs of these sizes into a package, whole or not at all.

    Takes a minute or more. Raises what torch.export and inductor raise. `picks_attention` takes
    the kernel of attention that is fastest here; `autotunes`, on CUDA, times inductor's others,
    too (on a CPU they hold weights of their own, packed).
    """
    kind = inputs[0].device.type
    if kind == "cuda":
        use_toolkit()
    backend = pick_backend(module, inputs) if picks_attention else None
    settings = {**_SETTINGS, "max_autotune": autotunes and kind == "cuda"}
    rows = Dim("rows", min=2, max=MAX_ROWS[kind])
    dynamic = None if len(inputs[0]) == 1 else {"inputs": tuple({0: rows} for _ in inputs)}
    with torch.no_grad(), attending_by(backend):
        inputs = tuple(tensor.clone() for tensor in inputs)  # none of inference mode
        program = export(module, inputs, dynamic_shapes=dynamic, strict=False)
        # Of this process alone: engines of two cards or pods may make the same one at a time.
        fresh = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp.pt2")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aoti_compile_and_package(program, package_path=str(fresh), inductor_configs=settings)
    fresh.chmod(0o600)
    fresh.replace(path)


def load_package(path: Path, module: nn.Module) -> Callable[..., torch.Tensor]:
    """Load a package that reads the weights of `module`.

    Packages are code. Raises CheckpointError for a file that others than its owner may write.
    """
    if path.stat().st_mode & 0o022 or path.parent.stat().st_mode & 0o022:
        raise CheckpointError(f"{path.name} and its folder may be written by their owner alone")
    # "single-threaded": without the locks and events that a captured graph cannot hold.
    loaded: Any = aoti_load_package(str(path), run_single_threaded=True)
    parts = (module.named_parameters, module.named_buffers)
    # Under each of its names: the adapted layers share their index.
    tensors = {name: tensor for part in parts for name, tensor in part(remove_duplicate=False)}
    given = {name: tensors[name] for name in loaded.get_constant_fqns()}
    loaded.load_constants(given, check_full_update=True, user_managed=True)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        output = loaded(*inputs)
        result: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
        return result

    return run


def _architecture(module: nn.Module) -> list[tuple[str, list[int], str]]:
    """Return the module's tensors without their values, which is what its code depends on."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return [(name, list(tensor.shape), str(tensor.dtype)) for name, tensor in named]


def _platform(device: torch.device) -> list[str]:
    """Return what a package is good for: this torch, on this kind of processor or card."""
    if device.type == "cpu":
        return [torch.__version__, torch.backends.cpu.get_cpu_capability()]
    return [torch.__version__, torch.cuda.get_device_name(device)]
