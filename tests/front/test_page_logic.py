"""The page without a browser: its modules under Node, and its snippets as programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.front.app import create_app
from service.front.schemas.requests import MAX_PROMPT_CHARS, MAX_SEED, SIDES
from service.settings import Settings
from tests.support.fakes import FakeEngineClient
from tests.support.servers import KEY, running_server

HERE = Path(__file__).parent / "web"
OLDEST_NODE = (20, 19)  # older ones need a package.json to load a .js file as a module
FIELDS: dict[str, Any] = {
    "prompt": 'it\'s a "red" house\\n at $HOME, 100% `new`',
    "style": "ANIME",
    "strength": 0.5,
    "steps": 6,
    "guidance": 7.5,
    "seed": 9_999_999_998,
    "width": 512,
    "height": 640,
}
EXTRA: dict[str, dict[str, Any]] = {
    "lcm-instant-refine": {},
    "lcm-inpainting": {},
    "lcm-upscale": {"refineCreative": True, "refineStrength": 0.7},
}


@pytest.fixture(scope="module")
def node() -> str:
    """Node, if it is recent enough to detect modules by their content."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is needed to run the page's modules")
    printed = subprocess.run(
        [found, "--version"], capture_output=True, text=True, check=True
    ).stdout
    version = tuple(int(part) for part in printed.strip("v\n").split(".")[:2])
    if version < OLDEST_NODE:
        pytest.skip(f"node {printed.strip()} is older than {OLDEST_NODE}")
    return found


def test_modules(node: str) -> None:
    """The modules that need no browser pass their tests in Node's own test runner."""
    files = sorted(HERE.glob("*.test.mjs"))
    assert len(files) >= 4
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", *files],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "# fail 0" in done.stdout


def test_limits_are_the_schemas(node: str) -> None:
    """The page reads every limit of its settings in the service's OpenAPI document."""
    document = create_app(Settings(), FakeEngineClient()).openapi()
    done = subprocess.run(
        [node, HERE / "limits.mjs"],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        check=True,
    )
    sides = {"type": "integer", "enum": list(SIDES)}
    limits = json.loads(done.stdout)
    limits["prompt"] = {name: limits["prompt"][name] for name in ("type", "maxLength")}
    assert limits == {
        "prompt": {"type": "string", "maxLength": MAX_PROMPT_CHARS},
        "style": {"type": "string", "minLength": 1, "maxLength": 200},
        "strength": {"type": "number", "minimum": 0.1, "maximum": 1},
        "steps": {"type": "integer", "minimum": 4, "maximum": 16},
        "guidance": {"type": "number", "minimum": 0.5, "maximum": 20},
        "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
        "width": sides,
        "height": sides,
        "refineStrength": {"type": "number", "minimum": 0.5, "maximum": 0.9},
        "refineCreative": {"type": "boolean"},
    }


def snippets(node: str, origin: str, route: str) -> dict[str, str]:
    fields = json.dumps({**FIELDS, **EXTRA[route]})
    done = subprocess.run(
        [node, HERE / "snippets.mjs", origin, route, fields],
        capture_output=True,
        text=True,
        check=True,
    )
    written: dict[str, str] = json.loads(done.stdout)
    return written


@pytest.mark.parametrize("route", EXTRA)
@pytest.mark.parametrize("language", ["curl", "python"])
def test_snippets_run(node: str, language: str, route: str, tmp_path: Path) -> None:
    """A copied snippet sends every field unchanged and writes the refined picture."""
    Image.new("RGB", (512, 640), (200, 30, 60)).save(tmp_path / "drawing.jpg")
    Image.new("L", (512, 640), 255).save(tmp_path / "mask.png")
    engine = FakeEngineClient()
    with running_server(engine, api_keys=KEY) as origin:
        code = snippets(node, origin, route)[language]
        assert KEY not in code
        command = ["sh", "-euc"] if language == "curl" else [sys.executable, "-c"]
        done = subprocess.run(
            [*command, code],
            cwd=tmp_path,
            env={**os.environ, "REFINE_API_KEY": KEY},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    params, _, _ = engine.asked[0]
    assert params.prompt.startswith(FIELDS["prompt"])
    assert params.seeds[0] == FIELDS["seed"]
    assert params.num_inference_steps == FIELDS["steps"]
    assert params.guidance_scale == FIELDS["guidance"]
    with Image.open(tmp_path / "refined.jpg") as picture:
        assert picture.size == ((1024, 1280) if route == "lcm-upscale" else (512, 640))
