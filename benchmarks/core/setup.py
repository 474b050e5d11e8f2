"""What the lanes of a run share: checkpoint, device, dtype; and the columns that describe it."""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.core.environment import environment
from benchmarks.core.experiment import add_run_arguments
from models.checkpoints.catalog import find_checkpoint
from models.checkpoints.hub import local_folder
from models.runtime.device import pick_dtype
from service.settings import Tuning

_NAME = "measured"


@dataclass(frozen=True)
class Setup:
    """`tiny` is the folder of an `AutoencoderTiny` that comes with the checkpoint, if any."""

    checkpoint: Path
    device: str = "cpu"
    dtype_name: str = "float32"
    cache: Path = Path(".bench-cache")
    tiny: Path | None = None
    tune: Tuning = "kernels"

    @property
    def dtype(self) -> torch.dtype:
        return pick_dtype(self.dtype_name, self.device)

    @property
    def is_cuda(self) -> bool:
        return torch.device(self.device).type == "cuda"

    @property
    def is_sdxl(self) -> bool:
        """Whether the checkpoint has the layout of SDXL."""
        return (self.checkpoint / "text_encoder_2").is_dir()

    @property
    def can_stream(self) -> bool:
        """Whether StreamDiffusion's recipe can run: it needs an `AutoencoderTiny`, and no SDXL."""
        config = json.loads((self.checkpoint / "vae" / "config.json").read_text())
        has_tiny = self.tiny is not None or config["_class_name"] == "AutoencoderTiny"
        return has_tiny and not self.is_sdxl

    def synchronise(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()

    def model(self) -> dict[str, str]:
        """Return the engine settings that select this checkpoint and its `AutoencoderTiny`."""
        if self.tiny is None:
            return {"model": str(self.checkpoint)}
        self.cache.mkdir(parents=True, exist_ok=True)
        catalog = self.cache / f"{self.checkpoint.name}.toml"
        folders = {"source": str(self.checkpoint.resolve()), "tiny": str(self.tiny.resolve())}
        lines = [f"{name} = {json.dumps(value)}" for name, value in folders.items()]
        catalog.write_text("\n".join([f"[{_NAME}]", *lines, ""]))
        return {"model": _NAME, "catalog": str(catalog)}

    def conditions(self) -> dict[str, Any]:
        """Return the columns that every row of this setup has."""
        return {
            "checkpoint": self.checkpoint.name,
            "card": torch.cuda.get_device_name(self.device) if self.is_cuda else "none",
            "driver": _driver() if self.is_cuda else "none",
            "device": torch.device(self.device).type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "tune": self.tune,
            **environment(),
        }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return ended.stdout.splitlines()[0].strip()


def setup_parser(description: str | None, *, budget_s: float = 600) -> argparse.ArgumentParser:
    """Return a parser with the arguments of every run and of its setup."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    pocket = local_folder(find_checkpoint("pocket"))
    parser.add_argument("--checkpoint", type=Path, default=pocket, help="see random_checkpoint")
    parser.add_argument("--tiny", type=Path, help="an AutoencoderTiny; default CHECKPOINT/tiny")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="", help="default float16 on CUDA, float32 on a CPU")
    parser.add_argument("--tune", choices=get_args(Tuning), default="kernels", help="REFINE_TUNE")
    parser.add_argument("--cache", type=Path, default=Path(".bench-cache"), help="compiled code")
    add_run_arguments(parser, budget_s=budget_s)
    return parser


def setup_of(arguments: argparse.Namespace) -> Setup:
    """Return the setup that arguments of `setup_parser` describe.

    cuDNN keeps the first algorithm that it picks for a size of convolution, for the whole process.
    All lanes pick by timing, or with `--tune off` none does.
    """
    torch.backends.cudnn.benchmark = arguments.tune != "off"
    beside = arguments.checkpoint / "tiny"
    return Setup(
        arguments.checkpoint,
        arguments.device,
        arguments.dtype or ("float32" if arguments.device == "cpu" else "float16"),
        arguments.cache,
        arguments.tiny or (beside if beside.is_dir() else None),
        arguments.tune,
    )
