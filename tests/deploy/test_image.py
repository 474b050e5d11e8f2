"""Dockerfile.cuda without a container engine: its lint, its lock, its steps as plain commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

from tests.support.servers import START_S, wait_until
from tests.whole_service.test_service import ROUTE, body

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile.cuda").read_text("utf-8")
LOCK = (ROOT / "requirements-cuda.lock").read_text("utf-8")
TOOL = Path(sys.executable).with_name("hadolint")
UID = 10001
INSTALL_S = 1500.0
"""The longest time to download and unpack all wheels on a busy machine."""

GPU_PACKAGES = ("torch", "triton", "nvidia-", "cuda-")
"""Prefixes of the lock's packages for a GPU: gigabytes that the test skips."""


def stage(name: str) -> str:
    """Return a stage of the Dockerfile with its lines joined and without comments."""
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE).replace("\\\n", " ")
    (found,) = re.findall(rf"(?ms)^FROM \S+ AS {name}$(.*?)(?=^FROM|\Z)", text)
    return str(found)


def instructions(name: str, of_stage: str) -> list[str]:
    return re.findall(rf"(?m)^{name} (.*)$", stage(of_stage))


def locked() -> dict[str, str]:
    """Return the names and versions of the lock."""
    return dict(re.findall(r"(?m)^([a-z0-9.-]+)(?:\[\w+\])?==(\S+)", LOCK.lower()))


def test_hadolint_passes() -> None:
    """The Dockerfile follows hadolint's rules."""
    checked = subprocess.run(
        [TOOL, ROOT / "Dockerfile.cuda"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_written_folders_are_in_the_volume() -> None:
    """Every folder written at run time is in the volume, so the root can be read-only."""
    (volume,) = instructions("VOLUME", "runtime")
    (line,) = instructions("ENV", "runtime")
    given = dict(word.split("=", 1) for word in shlex.split(line))
    for name in ("REFINE_CACHE_DIR", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert Path(given[name]).is_relative_to(volume)
    assert instructions("COPY", "with-caches")[-1].split()[-1] == f"{given['REFINE_CACHE_DIR']}/"


def test_context_is_small_and_has_no_key() -> None:
    """The context contains only files that the image needs, and no instruction sets a key."""
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert ignored[1] == "*"
    copied = [line.split()[:-1] for line in instructions("COPY", "build")]
    for name in {word.strip("/") for words in copied for word in words}:
        assert f"!{name}" in ignored
    assert "REFINE_API_KEYS" not in stage("runtime")


def test_lock_matches_the_project() -> None:
    """The lock has every dependency and those of two extras, with hashes, as constrained."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    versions = locked()
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *extras["ray"], *extras["cuda"]]:
        asked = Requirement(line)
        assert asked.specifier.contains(versions[asked.name.lower()]), line
    constraints = (ROOT / "constraints.txt").read_text("utf-8").lower().replace("_", "-")
    for name, version in re.findall(r"(?m)^(\S+)==(\S+)$", constraints):
        assert versions.get(name, version) == version, f"{name}: run make lock"
    entries = re.split(r"(?m)^(?=[a-z])", LOCK)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_S + 300)
def test_build_steps_make_a_service(tmp_path: Path) -> None:
    """The RUN lines of the build stage, in an empty folder, make a service that refines an image.

    CUDA's wheels are skipped: torch comes from this environment's constraints. The service starts
    offline, with the image's environment, and passes the image's health check.
    """
    venv = build(tmp_path)
    cache = tmp_path / "cache"
    cache.mkdir()
    environment = image_environment(venv, cache)
    command = [str(venv / "bin/instant-refine"), "serve", "--host", "127.0.0.1"]
    with subprocess.Popen(command, cwd=cache, env=environment) as process:
        try:
            url = f"http://127.0.0.1:{environment['REFINE_PORT']}"
            wait_until(lambda: is_healthy(venv, environment), START_S)
            wait_until(lambda: httpx.get(url + "/health/ready").status_code == 200, START_S)
            assert httpx.post(url + ROUTE, json=body(), timeout=60).status_code == 200
        finally:
            process.terminate()
            process.wait(30)


def build(folder: Path) -> Path:
    """Run the steps of the build stage; return their virtual environment."""
    source, venv = folder / "src", folder / "venv"
    source.mkdir()
    for line in instructions("COPY", "build"):
        *names, _ = line.split()
        for name in names:
            copy(ROOT / name, source / name)
    lock = source / "requirements-cuda.lock"
    entries = re.split(r"(?m)^(?=[a-z])", LOCK)
    lock.write_text("".join(entry for entry in entries if not entry.startswith(GPU_PACKAGES)))
    for line in instructions("RUN", "build"):
        if line.startswith("apt-get"):
            continue
        run(line.replace("/opt/venv", str(venv)), source)
        if " -m venv " in line:
            torch = f"{venv}/bin/pip install --no-deps torch=={locked()['torch']}"
            run(torch, source)
    return venv


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "training"))
    else:
        shutil.copy(source, target)


def run(line: str, folder: Path) -> None:
    done = subprocess.run(
        shlex.split(line),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"


def image_environment(venv: Path, cache: Path) -> dict[str, str]:
    """Return the image's ENV with this machine's folders and a free port."""
    (line,) = instructions("ENV", "runtime")
    given = dict(word.split("=", 1) for word in shlex.split(line))
    given = {name: value.replace("/cache", str(cache)) for name, value in given.items()}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    path = f"{venv}/bin:{os.environ['PATH']}"
    home = cache.with_name("home")  # does not exist: the image's root is read-only
    return given | {"PATH": path, "REFINE_PORT": port, "HOME": str(home)}


def is_healthy(venv: Path, environment: dict[str, str]) -> bool:
    """Run the image's health check."""
    (words,) = re.findall(r"(?m)^HEALTHCHECK .*CMD (\[.*\])$", stage("runtime"))
    _, *arguments = json.loads(words)
    return subprocess.run([venv / "bin/python", *arguments], env=environment, capture_output=True,
                          check=False).returncode == 0  # fmt: skip
