"""The README's examples run as they stand, and what it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from models.catalog import load_catalog
from service.client import LocalEngineClient
from service.front.info import default_fields
from service.front.refining import ROUTES
from service.settings import EngineSettings
from tests.servers import START_S, running_server, wait_until

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLES = re.findall(
    r"<!-- run by tests/test_readme.py -->\n```(\w+)\n(.*?)```", README, re.DOTALL
)
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The service as `make serve` starts it: the bundled checkpoint, no key."""
    client = LocalEngineClient(EngineSettings())
    with running_server(client) as url:
        wait_until(lambda: client.health.state == "serving", START_S)
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like the repository to an example, which may write into it."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "instant-refine").symlink_to(Path(sys.executable).with_name("instant-refine"))
    return tmp_path


def run(language: str, code: str, folder: Path, address: str) -> None:
    code = code.replace(ADDRESS, address)
    command = ["bash", "-euo", "pipefail", "-c"] if language == "sh" else [sys.executable, "-c"]
    ended = subprocess.run(
        [*command, code], cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_there_are_examples_of_each_kind() -> None:
    """curl, Python and the command line each have an example that this file runs."""
    code = "".join(text for _, text in EXAMPLES)
    assert "curl" in code
    assert "leonardo_ai_sdk" in code
    assert "instant-refine refine" in code
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize(("language", "code"), EXAMPLES, ids=["curl", "sdk", "refine"])
def test_an_example_gives_a_picture(language: str, code: str, folder: Path, address: str) -> None:
    """Run as it stands, on the bundled checkpoint, an example leaves one picture of 512 x 512."""
    run(language, code, folder, address)
    (picture,) = [path for path in folder.iterdir() if path.suffix in {".jpg", ".png"}]
    with Image.open(picture) as image:
        assert image.size == (512, 512)
        assert len(image.getcolors(1 << 18) or range(1 << 18)) > 1000, "the picture is flat"


def test_the_tree_names_what_is_there() -> None:
    """Each file of the tree exists, so that a newcomer finds the room by its name."""
    (tree,) = re.findall(r"```\n(models/ .*?)```", README, re.DOTALL)
    folders: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.split(r"\s{2,}", line.strip())[0].split():
            path = ROOT.joinpath(*folders[:depth], name)
            assert path.exists(), path
            if name.endswith("/"):
                folders[depth:] = [name]


def test_the_table_of_defaults_is_true() -> None:
    """Each route's steps, strength and guidance are those that its requests get."""
    rows = re.findall(r"^\| (`/\S+`.*?) \| (\d.*)$", README, re.MULTILINE)
    assert {name for names, _ in rows for name in re.findall(r"`/(\S+)`", names)} == set(ROUTES)
    usual: list[str] = []
    for names, row in rows:
        cells = [cell.strip() for cell in row.split("|")]
        steps, others, strength, guidance = cells[:2] + [
            usual[index] if cell == "the same" else cell for index, cell in enumerate(cells[2:4])
        ]
        usual = usual or [strength, guidance]
        for name in re.findall(r"`/(\S+)`", names):
            for model, checkpoint in load_catalog().items():
                is_pocket, has_lora = model == "pocket", checkpoint.lora is not None
                told = {
                    "steps": steps if is_pocket else _pick(others, "with an LCM-LoRA", has_lora),
                    "strength": _pick(strength, "of `pocket`", is_pocket),
                    "guidance": _pick(guidance, "of `pocket`", is_pocket),
                }
                defaults = default_fields(checkpoint, ROUTES[name])
                assert {field: float(value) for field, value in told.items()} == {
                    field: defaults[field] for field in told
                }, f"{name} of {model}"


def _pick(cell: str, condition: str, holds: bool) -> str:
    """Read `8, with an LCM-LoRA 6`: the second where the condition holds."""
    usual, _, special = cell.partition(f", {condition} ")
    return special if special and holds else usual


def test_links_lead_somewhere() -> None:
    """Every link within the repository names a file."""
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text("utf-8")):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert (ROOT / target).exists(), target
