"""The page's client of /v1/realtime, under Node."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import KEY, running_server
from tests.support.sockets import PICTURE

HERE = Path(__file__).parent
CLIENT = HERE.parents[2] / "service/front/web/live/realtime.js"


def test_javascript_client() -> None:
    """On a fake socket and a real server the newest frame counts, also after a reconnection."""
    if shutil.which("node") is None:
        pytest.skip("node is needed to run the page's client")
    with running_server(api_keys=KEY) as url:
        environment = {
            "REFINE_URL": url.replace("http", "ws") + "/v1/realtime",
            "REFINE_KEY": KEY,
            "REFINE_PICTURE": base64.b64encode(PICTURE).decode(),
        }
        done = subprocess.run(
            ["node", "--experimental-websocket", "--test", HERE / "realtime_client.mjs"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert "# pass 8" in done.stdout


def test_the_clients_are_short() -> None:
    """A client in another language is an afternoon's work: these two stay under 150 lines."""
    for client in (CLIENT, HERE.parents[2] / "service/realtime_client.py"):
        assert len(client.read_text().splitlines()) < 150
