"""What the page copies as TypeScript, run with the official client."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from PIL import Image

from service.front.schemas.requests import MAX_SEED
from tests.support.fakes import FakeEngineClient
from tests.support.servers import KEY

_PRINTER = Path(__file__).parents[1] / "front" / "web" / "snippets.mjs"
_FIELDS = {"prompt": 'a "red" `house`\n${here}', "steps": 6, "seed": MAX_SEED, "width": 640}


def test_the_snippet_asks_for_the_same_picture(
    modules: Path, address: str, engine: FakeEngineClient, tmp_path: Path
) -> None:
    """Run as it is copied, it sends every field unchanged, and leaves the refined picture."""
    arguments = [address, "lcm-instant-refine", json.dumps(_FIELDS)]
    told = subprocess.run(
        ["node", _PRINTER, *arguments], capture_output=True, text=True, check=True
    )
    (tmp_path / "node_modules").symlink_to(modules)
    # It holds no types, so that it is JavaScript as well.
    (tmp_path / "snippet.mjs").write_text(json.loads(told.stdout)["typescript"], "utf-8")
    Image.new("RGB", (640, 512), (200, 30, 60)).save(tmp_path / "drawing.jpg")
    done = subprocess.run(
        ["node", "snippet.mjs"],
        cwd=tmp_path,
        env={**os.environ, "REFINE_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    params, _, _ = engine.asked[0]
    assert params.prompt == _FIELDS["prompt"]
    assert params.seeds[0] == MAX_SEED
    with Image.open(tmp_path / "refined.jpg") as picture:
        assert picture.size == (640, 512)
