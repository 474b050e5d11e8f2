"""`instant-refine doctor`: what this machine has, and the cure for what it lacks."""

from __future__ import annotations

import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from models.checkpoints.catalog import find_checkpoint, load_catalog
from models.checkpoints.hub import local_folder
from models.errors import CheckpointError
from models.lora.files import local_lora
from models.runtime.cuda_headers import NoToolkit, find_toolkit
from models.runtime.device import pick_device, pick_dtype
from models.styles.presets import load_styles
from service.api_keys import KeyFileError
from service.front.access_control.keyring import KeyRing, is_loopback
from service.front.images.thumbnails import read_thumbnails
from service.settings import Settings

_GIB = 1 << 30
_LEAST_MEMORY_GIB = 2
_LEAST_DISK_GIB = 1
_OLDEST_PYTHON = (3, 11)
_OLDEST_TORCH, _FIRST_UNTRIED_TORCH = (2, 11), (2, 14)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `cure` is empty where all is well."""

    subject: str
    found: str
    cure: str = ""


def diagnose(settings: Settings, console: Console) -> bool:
    """Print a table of findings; return True when nothing is amiss."""
    findings = list(examine(settings))
    table = Table("", "what", "found", "cure")
    for finding in findings:
        mark = "[red]fault[/]" if finding.cure else "[green]ok[/]"
        table.add_row(mark, finding.subject, finding.found, finding.cure)
    console.print(table)
    return not any(finding.cure for finding in findings)


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything that serving needs."""
    yield _python()
    yield _torch()
    for name in settings.devices():
        yield _device(name, settings)
    if settings.compile != "off":
        yield _compiler(settings)
    yield _memory()
    yield _disk()
    for name in settings.model_names():
        yield _model(name, settings)
    yield _styles(settings)
    yield from _cached(settings)
    yield _port(settings)
    yield _keys(settings)


def _python() -> Finding:
    is_old = sys.version_info < _OLDEST_PYTHON
    return Finding(
        "python", platform.python_version(), "install Python 3.11 or newer" if is_old else ""
    )


def _torch() -> Finding:
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    is_untried = not _OLDEST_TORCH <= version < _FIRST_UNTRIED_TORCH
    cure = "install the version of constraints.txt: make install" if is_untried else ""
    built_for = torch.version.cuda or "CPU"
    return Finding("torch", f"{torch.__version__} (built for {built_for})", cure)


def _device(name: str, settings: Settings) -> Finding:
    try:
        device = pick_device(name)
        dtype = str(pick_dtype(settings.dtype, device)).removeprefix("torch.")
    except ValueError as error:
        return Finding("device", name, f"{error}; or set REFINE_DEVICE=auto")
    if device == "cpu":
        return Finding("device", f"cpu, {torch.get_num_threads()} threads, {dtype}")
    return Finding("device", f"{device}: {torch.cuda.get_device_name(device)}, {dtype}")


def _compiler(settings: Settings) -> Finding:
    try:
        found = str(get_cpp_compiler())
        if any(pick_device(name).startswith("cuda") for name in settings.devices()):
            found += f", CUDA's headers in {find_toolkit()}"
    except InvalidCxxCompiler:
        return Finding("compiler", "none", "install g++, or set REFINE_COMPILE=off")
    except (NoToolkit, ValueError) as error:
        return Finding("compiler", found, str(error))
    return Finding("compiler", found)


def _memory() -> Finding:
    gib = psutil.virtual_memory().available / _GIB
    cure = f"free some: {_LEAST_MEMORY_GIB} GiB are needed" if gib < _LEAST_MEMORY_GIB else ""
    return Finding("memory", f"{gib:.1f} GiB available", cure)


def _disk() -> Finding:
    gib = shutil.disk_usage(Path.home()).free / _GIB
    cure = "free some, checkpoints are large" if gib < _LEAST_DISK_GIB else ""
    return Finding("disk", f"{gib:.1f} GiB free in {Path.home()}", cure)


def _model(name: str, settings: Settings) -> Finding:
    try:
        folder = local_folder(find_checkpoint(name, settings.own_catalog()))
    except CheckpointError as error:
        return Finding("model", name, str(error))
    return Finding("model", f"{name} in {folder}")


def _styles(settings: Settings) -> Finding:
    try:
        styles = load_styles(settings.styles)
        loras = [style.name for style in styles.values() if local_lora(style)]
        read_thumbnails(styles)
    except CheckpointError as error:
        return Finding("styles", settings.styles, str(error))
    return Finding("styles", f"{len(styles)}, of which {len(loras)} name a LoRA")


def _cached(settings: Settings) -> Iterator[Finding]:
    for checkpoint in load_catalog(settings.own_catalog()).values():
        try:
            yield Finding("checkpoint", f"{checkpoint.name}: {local_folder(checkpoint)}")
        except CheckpointError:
            yield Finding("checkpoint", f"{checkpoint.name}: not downloaded")


def _port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError:
            return Finding("port", f"{where} is taken", "serve elsewhere: --port or REFINE_PORT")
    return Finding("port", f"{where} is free")


def _keys(settings: Settings) -> Finding:
    if not settings.needs_key:
        is_safe = is_loopback(settings.host) or settings.insecure_no_auth
        cure = "" if is_safe else f"set REFINE_API_KEYS to serve on {settings.host}"
        return Finding("keys", "none: whoever reaches the service may ask", cure)
    try:
        ring = KeyRing(settings.keys(), settings.keys_file)
    except KeyFileError as error:
        return Finding("keys", str(settings.keys_file), str(error))
    return Finding("keys", f"{len(ring)} keys")
