"""Where and in what lanes run: checkpoint, device, dtype; and what a row says of it."""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.core.environment import conditions
from models.catalog import find_checkpoint
from models.device import pick_dtype
from models.hub import local_folder
from service.settings import Tuning

_NAME = "measured"


@dataclass(frozen=True)
class Place:
    """`tiny` is a folder with an `AutoencoderTiny` beside the checkpoint's own autoencoder."""

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
    def is_tiny_itself(self) -> bool:
        """Whether the checkpoint's own autoencoder is an `AutoencoderTiny`."""
        config = json.loads((self.checkpoint / "vae" / "config.json").read_text())
        return bool(config["_class_name"] == "AutoencoderTiny")

    @property
    def is_sdxl(self) -> bool:
        """Whether the checkpoint has the layout of SDXL."""
        return (self.checkpoint / "text_encoder_2").is_dir()

    @property
    def streams(self) -> bool:
        """Whether it can run StreamDiffusion's recipe: an `AutoencoderTiny`, and no SDXL."""
        return (self.tiny is not None or self.is_tiny_itself) and not self.is_sdxl

    def synchronise(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()

    def model(self) -> dict[str, str]:
        """Return the engine's settings that name this checkpoint with the autoencoder beside it."""
        if self.tiny is None:
            return {"model": str(self.checkpoint)}
        self.cache.mkdir(parents=True, exist_ok=True)
        catalog = self.cache / f"{self.checkpoint.name}.toml"
        parts = {"source": str(self.checkpoint.resolve()), "tiny": str(self.tiny.resolve())}
        lines = [f"{name} = {json.dumps(value)}" for name, value in parts.items()]
        catalog.write_text("\n".join([f"[{_NAME}]", *lines, ""]))
        return {"model": _NAME, "catalog": str(catalog)}

    def conditions(self) -> dict[str, Any]:
        """Return what stands beside every row that is measured here."""
        return {
            "checkpoint": self.checkpoint.name,
            "card": torch.cuda.get_device_name(self.device) if self.is_cuda else "none",
            "driver": _driver() if self.is_cuda else "none",
            "device": torch.device(self.device).type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "tune": self.tune,
            **conditions(),
        }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return ended.stdout.splitlines()[0].strip()


def add_arguments(parser: argparse.ArgumentParser, *, budget_s: float) -> None:
    """Add what every measurement of lanes can be told."""
    pocket = local_folder(find_checkpoint("pocket"))
    parser.add_argument("--checkpoint", type=Path, default=pocket, help="see random_checkpoint")
    parser.add_argument("--tiny", type=Path, help="an AutoencoderTiny; else CHECKPOINT/tiny")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="", help="else float16 on CUDA, float32 on a CPU")
    parser.add_argument(
        "--tune", choices=get_args(Tuning), default="kernels", help="as REFINE_TUNE"
    )
    parser.add_argument("--cache", type=Path, default=Path(".bench-cache"), help="compiled code")
    parser.add_argument("--budget", type=float, default=budget_s, help="seconds, more or less")
    parser.add_argument("--anew", action="store_true", help="measure what has a row already, too")
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results")


def place_of(arguments: argparse.Namespace) -> Place:
    """Return the place that `add_arguments` were given.

    cuDNN keeps its first choice for each size of a convolution, whichever lane comes first: so all
    lanes have theirs by timing, or none.
    """
    torch.backends.cudnn.benchmark = arguments.tune != "off"
    beside = arguments.checkpoint / "tiny"
    return Place(
        arguments.checkpoint,
        arguments.device,
        arguments.dtype or ("float32" if arguments.device == "cpu" else "float16"),
        arguments.cache,
        arguments.tiny or (beside if beside.is_dir() else None),
        arguments.tune,
    )
