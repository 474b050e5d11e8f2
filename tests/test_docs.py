"""The documents: their examples run, their tables are current, and their names exist.

Every block of a shell or Python runs as it is, on one service with the bundled checkpoint. A
comment before a block says otherwise: `slow`, `not run: REASON` or `run by TEST`. Commands of
blocks that do not run, and commands in the text, are checked against the command line, the
Makefile and the tree.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from PIL import Image

from docs.tables import DOCUMENTS, ROOT, with_tables
from models.styles.presets import load_styles
from service.cli.main import app as command_line
from service.engine_client.local import LocalEngineClient
from service.errors import RefineError
from service.front.app import create_app
from service.settings import EngineSettings, Settings
from tests.support.fakes import FakeEngineClient
from tests.support.servers import START_S, running_server, wait_until

ADDRESS = "http://127.0.0.1:8000"
TEXTS = {
    document.relative_to(ROOT).as_posix(): document.read_text("utf-8") for document in DOCUMENTS
}
API = TEXTS["docs/api.md"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
BLOCK = re.compile(r"(?:<!-- (slow|not run: .*|run by .*) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
FOLDERS = "service|models|benchmarks|tests|deploy|docs"


class Block(NamedTuple):
    """A fenced block: where it is, the comment before it, its language and its text."""

    name: str
    mark: str
    language: str
    code: str


BLOCKS = [
    Block(f"{name}-{number}", *groups)
    for name, text in TEXTS.items()
    for number, groups in enumerate(BLOCK.findall(text), 1)
]

COMMANDS = sorted(
    {
        command
        for text in TEXTS.values()
        for command in re.findall(r"`((?:instant-refine|make|pytest|python -m) [^`\n]+)`", text)
    }
)


def blocks(*languages: str, is_run: bool = True) -> list[Any]:
    """Return the blocks of a language as parameters, those that run or the others."""
    return [
        pytest.param(block, id=block.name, marks=[pytest.mark.slow] if block.mark == "slow" else [])
        for block in BLOCKS
        if block.language in languages and (block.mark in {"", "slow"}) is is_run
    ]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The service as `make serve` starts it: the bundled checkpoint, no key."""
    client = LocalEngineClient(EngineSettings())
    with running_server(client) as url:
        wait_until(lambda: client.health.state == "serving", START_S)
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like the repository, which an example may write to."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "instant-refine").symlink_to(Path(sys.executable).with_name("instant-refine"))
    return tmp_path


@pytest.mark.parametrize("block", blocks("sh", "python"))
def test_example_runs(block: Block, folder: Path, address: str) -> None:
    """An example succeeds as it is; an image that it writes is 512 x 512 and not flat."""
    code = block.code.replace(ADDRESS, address)
    is_shell = block.language == "sh"
    command = ["bash", "-euo", "pipefail", "-c"] if is_shell else [sys.executable, "-c"]
    done = subprocess.run(
        [*command, code], cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    written = [path for path in folder.iterdir() if path.suffix in {".jpg", ".png"}]
    assert len(written) == len(set(re.findall(r"\w[\w-]*\.(?:jpg|png)", code)) - {"doodle.jpg"})
    for path in written:
        with Image.open(path) as image:
            assert image.size == (512, 512)
            assert len(image.getcolors(1 << 18) or range(1 << 18)) > 1000, "the image is flat"


@pytest.mark.parametrize("block", blocks("sh", "python", is_run=False))
def test_other_commands_exist(block: Block) -> None:
    """A block that does not run names commands, options and files that exist."""
    assert block.language == "sh"
    if test := block.mark.removeprefix("run by "):
        assert block.mark.startswith("not run: ") or (ROOT / test).is_file()
    for line in block.code.replace("\\\n", " ").splitlines():
        check_command(line)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_in_the_text_exists(command: str) -> None:
    """A command in backticks has options, targets, modules and files that exist."""
    check_command(command)


def check_command(line: str) -> None:
    """Assert that a command line names subcommands, options, make targets and files that exist."""
    words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]
    for path in re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./-]*", " ".join(words)):
        assert (ROOT / path).exists(), line
    match [Path(words[0]).name, *words[1:]] if words else []:
        case ["instant-refine", *arguments]:
            command: Any = typer.main.get_command(command_line)
            while getattr(command, "commands", None) and arguments and arguments[0].isalpha():
                command = command.commands[arguments.pop(0)]
            options = {name for option in command.params for name in option.opts} | {"--help"}
            given = {word.partition("=")[0] for word in arguments if word.startswith("-")}
            assert given <= options, line
        case ["make", target, *_]:
            assert re.search(rf"(?m)^{target}:", MAKEFILE), line
        case ["python", "-m", module, *_]:
            assert find_spec(module), line


@pytest.mark.parametrize("block", blocks("json"))
def test_json_parses(block: Block) -> None:
    """A JSON block is JSON."""
    json.loads(block.code)


@pytest.mark.parametrize("block", blocks("toml"))
def test_styles_parse(block: Block, tmp_path: Path) -> None:
    """A TOML block is a file of styles."""
    file = tmp_path / "styles.toml"
    file.write_text(block.code, "utf-8")
    assert load_styles(str(file)).keys() > load_styles().keys()


def test_readme_is_short_and_has_each_kind_of_example() -> None:
    """The README has at most 160 lines, and curl and the SDK run."""
    assert len(TEXTS["README.md"].splitlines()) <= 160
    code = "".join(b.code for b in BLOCKS if b.name.startswith("README.md") and not b.mark)
    assert "curl" in code
    assert "leonardo_ai_sdk" in code


@pytest.mark.parametrize("name", TEXTS)
def test_tables_are_current(name: str) -> None:
    """Generated tables are those that `make docs` writes."""
    assert with_tables(TEXTS[name]) == TEXTS[name]


@pytest.mark.parametrize("name", TEXTS)
def test_names_exist(name: str) -> None:
    """Links lead to files and headings; paths and settings exist."""
    text = TEXTS[name]
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, heading = target.partition("#")
        linked = (ROOT / name).parent / path if path else ROOT / name
        assert linked.exists(), target
        headings = re.findall(r"(?m)^#+ (.*)$", linked.read_text("utf-8")) if heading else []
        slugs = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}
        assert not heading or heading in slugs, target
    if name != "CHANGELOG.md":
        for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text):
            assert (ROOT / path).exists(), path
        settings = {f"REFINE_{field.upper()}" for field in Settings.model_fields}
        assert set(re.findall(r"REFINE_[A-Z_]*[A-Z]", text)) <= settings


def test_tree_is_complete() -> None:
    """The tree of the architecture has every package, and each of its folders exists."""
    (tree,) = re.findall(r"<!-- tree -->\n```\n(.*?)```", TEXTS["docs/architecture.md"], re.DOTALL)
    folders: list[str] = []
    named = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [line.split()[0].rstrip("/")]
        named.add("/".join(folders))
    packages = {
        init.parent.relative_to(ROOT).as_posix()
        for folder in ("service", "models")
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert {name for name in packages if not name.startswith("models/training/")} <= named
    assert all((ROOT / name).is_dir() for name in named)


def rows(heading: str) -> list[list[str]]:
    """Return the cells of each row of the tables below a heading of the API's document."""
    section = re.split(r"(?m)^##+ ", API.split(f" {heading}\n", 1)[1])[0]
    lines = re.findall(r"(?m)^\| ([`\d].*) \|$", section)
    return [[cell.strip() for cell in line.split(" |")] for line in lines]


def coded(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The service's own OpenAPI document."""
    return dict(create_app(Settings(), FakeEngineClient()).openapi())


def test_api_names_every_route(schema: dict[str, Any]) -> None:
    """The table of routes has every operation, and the two that OpenAPI does not list."""
    operations = {f"{m.upper()} {path}" for path, item in schema["paths"].items() for m in item}
    named = {coded(row[0])[0] for row in rows("Routes") if " " in coded(row[0])[0]}
    assert named == operations | {"GET /v1/realtime", "GET /metrics"}


def test_api_names_every_field_with_its_bounds(schema: dict[str, Any]) -> None:
    """The tables of fields have every field of every request, and each bound of a number."""
    named = {name: row[1] for row in rows("Fields of a request") for name in coded(row[0])}
    fields: dict[str, Any] = {}
    for item in schema["paths"].values():
        for content in item.get("post", {}).get("requestBody", {}).get("content", {}).values():
            fields = content["schema"].get("properties", {}) | fields
    assert named.keys() == fields.keys()
    for name, field in fields.items():
        for kind in field.get("anyOf", []):
            bounds = [kind[key] for key in ("minimum", "maximum") if key in kind]
            for bound in [*bounds, *kind.get("enum", [])]:
                text = str(bound).removesuffix(".0")
                assert re.search(rf"(?<![\d.]){text}(?!\d)", named[name]), (name, bound)


def test_api_names_every_field_of_a_response(schema: dict[str, Any]) -> None:
    """The table of the response has every field of the job."""
    named = {name for row in rows("Response") for name in coded(row[0])}
    assert named >= schema["components"]["schemas"]["LcmGenerationJob"]["properties"].keys()


def test_api_names_every_error() -> None:
    """The table of errors has every status and code of `service/errors.py`."""

    def errors(cls: type[RefineError]) -> set[tuple[int, str]]:
        own = set() if cls.__name__.startswith("_") else {(int(cls.status), cls.code)}
        return own.union(*map(errors, cls.__subclasses__()))

    named = {
        (int(status), code)
        for row in rows("Errors")
        for status in row[0].split(", ")
        for code in coded(row[1])
    }
    assert named == errors(RefineError)
