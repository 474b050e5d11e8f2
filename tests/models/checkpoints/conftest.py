"""A hub of its own for each test, and the command against it as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkpoints import write_checkpoint
from tests.support.fake_hub import FakeHub, serving_hub

COMMAND = Path(sys.executable).with_name("instant-refine")


class Machine:
    """A user's machine: his home, and the hub that he reaches."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home = home
        self.catalog = home / "catalog.toml"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "REFINE_CATALOG": str(self.catalog),
            "COLUMNS": "200",
        }

    def run(self, *arguments: str | Path, **environment: str) -> tuple[int, str]:
        """Run a command to its end; return its exit code, and all that it said in one line."""
        ended = subprocess.run(
            [COMMAND, *arguments], capture_output=True, text=True, timeout=200, check=False,
            env={**self.environment, **environment}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        said = re.sub(r"\s+", " ", ended.stdout + ended.stderr)
        assert "Traceback" not in said, said
        return ended.returncode, said

    def models(self, *arguments: str | Path, **environment: str) -> tuple[int, str]:
        return self.run("models", *arguments, **environment)

    def snapshot(self, hub_id: str, commit: str) -> Path:
        folder = f"models--{hub_id.replace('/', '--')}"
        return self.home / "hf" / "hub" / folder / "snapshots" / commit

    def pulled(self, hub_id: str, commit: str) -> set[str]:
        folder = self.snapshot(hub_id, commit)
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving_hub() as found:
        yield found


@pytest.fixture
def machine(hub: FakeHub, tmp_path: Path) -> Machine:
    return Machine(tmp_path, hub.url)


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a tiny checkpoint, and what published ones have beside."""
    folder = write_checkpoint(tmp_path_factory.mktemp("published"))
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return {**found, **decoys()}


def decoys() -> dict[str, bytes]:
    """What is never read, and so must never be pulled."""
    return {
        "README.md": b"# A model",
        "pipeline.py": b"raise SystemExit",
        "model.ckpt": b"a pickle",
        "unet/diffusion_pytorch_model.bin": b"a pickle",
        "unet/diffusion_pytorch_model.fp16.safetensors": b"a variant",
        "text_encoder/pytorch_model.bin": b"a pickle",
        "vae/diffusion_pytorch_model.fp16.safetensors": b"a variant",
        "safety_checker/model.safetensors": b"not loaded",
        "safety_checker/config.json": b"{}",
        "tokenizer/code.py": b"raise SystemExit",
    }
