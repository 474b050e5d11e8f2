"""The first commands of the README: clone, `make serve`, one image."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.servers import wait_until
from tests.whole_service.test_service import ROUTE, body

ROOT = Path(__file__).parents[2]
INSTALL_S = 1500.0


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_S + 100)
def test_fresh_clone_serves(tmp_path: Path) -> None:
    """`make serve` on a clone creates its environment and refines an image."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    service = subprocess.Popen(
        ["make", "serve", f"PORT={port}"], cwd=clone, env=environment, start_new_session=True
    )

    def is_ready() -> bool:
        assert service.poll() is None, "make serve has ended"
        try:
            return httpx.get(url + "/health/ready").is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(is_ready, INSTALL_S)
        answer = httpx.post(url + ROUTE, json=body(), timeout=60)
        assert answer.status_code == 200
        assert (clone / ".venv" / "bin" / "instant-refine").exists()
    finally:
        os.killpg(service.pid, signal.SIGKILL)
        service.wait()


@pytest.mark.slow
def test_install_passes_pip_args() -> None:
    """`make install` is pinned and passes `PIP_ARGS` to pip."""
    planned = subprocess.run(
        ["make", "-n", "install", "PIP_ARGS=--index-url example"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "MAKEFLAGS": "--always-make"},
    )  # fmt: skip
    assert "--constraint constraints.txt --index-url example --editable ." in planned.stdout
