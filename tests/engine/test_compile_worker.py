"""The compiler process's work: which packages it makes, and how they get their kernels."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from torch import nn

import models.runtime.aot
from service.engine.compile_worker import compile_shapes
from service.engine.warmup import Compiler
from service.settings import CompileMode, Settings, Tuning
from tests.support.servers import wait_until


@pytest.mark.parametrize(
    ("tune", "picks", "autotunes"),
    [("off", False, False), ("kernels", True, False), ("max", True, True)],
)
def test_a_tuning_has_its_kernels_and_its_folder(
    tune: Tuning,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    picks: bool,
    autotunes: bool,
) -> None:
    """From the service's setting to each forward, text encoders among them; `max` fuses, too."""
    made: dict[str, tuple[nn.Module, bool, bool]] = {}

    def note(
        module: nn.Module, _: Any, path: Path, *, picks_attention: bool, autotunes: bool
    ) -> None:
        made[path.stem.rsplit("-", 1)[0]] = (module, picks_attention, autotunes)
        assert path.parent == tmp_path / tune

    monkeypatch.setattr(models.runtime.aot, "compile_package", note)
    settings = Settings(
        model=str(tiny_checkpoint), device="cpu", dtype="float32", compile="background",
        tune=tune, cache_dir=tmp_path, warmup_shapes="64x64", max_batch=4,
    )  # fmt: skip
    (engine,) = settings.engines()
    assert compile_shapes(engine, engine.warmup_shapes) == 0
    assert made.keys() == {"denoise", "text-1", "encode-full", "decode-full"}
    assert {given[1:] for given in made.values()} == {(picks, autotunes)}
    names = [name for name, _ in made["denoise"][0].named_parameters()]
    assert any("to_qkv" in name for name in names) == (tune == "max")


@pytest.mark.parametrize(
    ("compile_mode", "is_terminal"), [("full", True), ("full", False), ("background", True)]
)
def test_who_waits_on_a_terminal_sees_a_bar(
    compile_mode: CompileMode,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    is_terminal: bool,
) -> None:
    """A log has a line for each package instead, also that of a service which serves meanwhile."""
    told = io.StringIO()
    monkeypatch.setattr(models.runtime.aot, "compile_package", lambda *_, **__: None)
    monkeypatch.setattr(
        "service.engine.compile_worker.Console",
        lambda **_: Console(file=told, force_terminal=is_terminal, width=80),
    )
    (engine,) = Settings(
        model=str(tiny_checkpoint), device="cpu", dtype="float32", compile=compile_mode,
        cache_dir=tmp_path, warmup_shapes="64x64", max_batch=4,
    ).engines()  # fmt: skip
    compile_shapes(engine, engine.warmup_shapes)
    has_bar = compile_mode == "full" and is_terminal
    assert ("100%" in told.getvalue()) == has_bar
    assert ("of 7" in "".join(capsys.readouterr())) != has_bar


def test_a_compiler_ends_with_who_started_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """However the engine ends, its compiler holds neither memory nor a GPU for much longer."""
    (engine,) = Settings(
        model=str(tiny_checkpoint), device="cpu", dtype="float32", compile="background",
        cache_dir=tmp_path, warmup_shapes="64x64", max_batch=4,
    ).engines()  # fmt: skip
    code = (
        "import os, sys\n"
        "from service.engine.warmup import Compiler\n"
        "from service.settings import EngineSettings\n"
        "settings = EngineSettings.model_validate_json(sys.argv[1])\n"
        "print(Compiler(settings, settings.warmup_shapes)._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
        "os._exit(1)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, engine.model_dump_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        compiler = psutil.Process(int(parent.stdout.readline()))
        time.sleep(1)
        assert not has_ended(compiler)
        parent.kill()
    wait_until(lambda: has_ended(compiler), 60)


def has_ended(process: psutil.Process) -> bool:
    """Whether it has, be it that nobody has asked for its exit code."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_compiler_that_has_made_all_says_so(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """It ends with 0, though a thread of its own waits for the end of who started it."""
    (engine,) = Settings(
        model=str(tiny_checkpoint), device="cpu", dtype="float32", compile="background",
        cache_dir=tmp_path, warmup_shapes="64x64", max_batch=4,
    ).engines()  # fmt: skip
    assert Compiler(engine, ()).wait() == 0
