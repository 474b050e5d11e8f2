"""`instant-refine models`: add, list, pull and check checkpoints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from models.checkpoints.catalog import BUNDLED, Checkpoint, find_checkpoint, load_catalog
from models.checkpoints.manifest import Fault, OnBytes, Scope, find_faults
from models.checkpoints.sources import Source
from models.errors import CheckpointError
from service.settings import Settings

_SHOWN_DIGITS = 10
_WIDE_COLUMNS = 110

app = typer.Typer(help="Add, list, pull and check checkpoints.", rich_markup_mode=None)

ModelArgument = Annotated[
    str, typer.Argument(help="A catalogue name, a folder, or a hub id ORG/NAME[@REVISION]")
]

_out = Console()
_err = Console(stderr=True)


@app.callback(invoke_without_command=True)
def models_or_list(context: typer.Context) -> None:
    """Add, list, pull and check checkpoints; without a command, list them."""
    if context.invoked_subcommand is None:
        list_models()


@app.command("list")
def list_models(
    *, as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs")] = False
) -> None:
    """List checkpoints, and what is here of each."""
    rows = [_described(checkpoint) for checkpoint in load_catalog(_own()).values()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    shown = list(map(_shown, rows))
    hidden = "" if _out.width >= _WIDE_COLUMNS else "what it is"  # which --json has
    titles = [title for title in shown[0] if title != hidden]
    for title in titles:
        table.add_column(title, no_wrap=title not in {"what it is", "licence"}, overflow="fold")
    for row in shown:
        table.add_row(*(row[title] for title in titles))
    _out.print(table)


@app.command()
def pull(model: ModelArgument) -> None:
    """Download a checkpoint, with a manifest.

    Each file is held against the digest that the hub announces. It then serves without a network.
    """
    from models.checkpoints import hub  # noqa: PLC0415 - each command loads what it needs

    checkpoint = find_checkpoint(model, _own())
    with _hashing() as on_bytes:
        hub.pull(checkpoint, on_bytes)
    for source, scope in hub.local_scopes(checkpoint).values():
        manifest = scope.read() if source.on_hub else None
        at = f" at {manifest.commit}" if manifest is not None else ""
        _say(f"{source.part or checkpoint.name}: {source.place}{at}, in {scope.root}")


@app.command()
def check(
    model: ModelArgument,
    *,
    record: Annotated[
        bool, typer.Option("--record", help="Take the files as they are for right, and record them")
    ] = False,
) -> None:
    """Hold every file against its manifest.

    Size and sha256, and what is missing or extra; ends with 1, and the names, where something is
    amiss.
    """
    from models.checkpoints.hub import local_scopes  # noqa: PLC0415

    checkpoint = find_checkpoint(model, _own())
    scopes = local_scopes(checkpoint)
    with _hashing(sum(_size(scope) for _, scope in scopes.values())) as on_bytes:
        examine = _recorded if record else _faults
        found = [
            (scope, fault)
            for source, scope in scopes.values()
            for fault in examine(checkpoint, source, scope, on_bytes)
        ]
    for scope, fault in found:
        _say(f"{fault}, in {scope.root}")
    if found:
        raise typer.Exit(1)
    num_files = sum(len(scope.files()) for _, scope in scopes.values())
    done = "are recorded" if record else "are as recorded"
    _say(f"{checkpoint.told}: {num_files} files {done}")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What requests will call it as modelId")],
    where: Annotated[str, typer.Argument(help="A folder, or a hub id ORG/NAME[@REVISION]")],
    licence: Annotated[str | None, typer.Option(help="Its licence; asked for when absent")] = None,
    lora: Annotated[
        str | None, typer.Option(help="An LCM-LoRA, a file or hub id; else its family's own")
    ] = None,
    tiny: Annotated[
        str | None, typer.Option(help="A TAESD, a folder or hub id; else its family's own")
    ] = None,
) -> None:
    """Give a checkpoint of your own a name.

    It is put into your catalogue, REFINE_CATALOG, unless something in it could not be loaded.
    """
    from models.checkpoints import register as adding  # noqa: PLC0415

    own = Settings().catalog.expanduser()
    adding.check_name(name, own)
    candidate = adding.examine(where)
    checkpoint = adding.to_checkpoint(
        name,
        candidate,
        licence=licence or _ask_licence(candidate.licence),
        lora=lora,
        tiny=tiny,
    )
    if candidate.revision is None:
        _adopt(checkpoint)
    adding.append(checkpoint, own)
    _say(f"{name}: {checkpoint.title}; licence {checkpoint.licence}; added to {own}")
    if any(source.on_hub for source in _sources(checkpoint)):
        _say(f"download what is on the hub with: instant-refine models pull {name}")
    _say(f"serve it with: instant-refine serve --model {name}")


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    from models.checkpoints.hub import local_scopes  # noqa: PLC0415

    try:
        size = sum(_size(scope) for _, scope in local_scopes(checkpoint).values())
    except CheckpointError:
        size = None
    return {
        "name": checkpoint.name,
        "title": checkpoint.title,
        "licence": checkpoint.licence,
        "guidance": checkpoint.guidance_told,
        "source": checkpoint.source,
        "revision": checkpoint.revision,
        "parts": checkpoint.parts(),
        "bytes": size,
    }


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    """Return a row as the table has it, by its columns."""
    revision = row["revision"] or ("bundled" if row["source"] == BUNDLED else "folder")
    return {
        "name": row["name"],
        "what it is": row["title"],
        "licence": row["licence"],
        "guidance": row["guidance"],
        "revision": revision[:_SHOWN_DIGITS],
        "on disk": f"{row['bytes'] / 1e6:,.0f} MB" if row["bytes"] is not None else "no",
    }


def _faults(checkpoint: Checkpoint, source: Source, scope: Scope, on_bytes: OnBytes) -> list[Fault]:
    manifest = scope.read()
    if manifest is None:
        verb = "models pull" if source.on_hub else "models check --record"
        raise CheckpointError(
            f"{scope.root} has no manifest to check: `instant-refine {verb} {checkpoint.told}` "
            "writes one"
        )
    return find_faults(scope, manifest, hashes=True, on_bytes=on_bytes)


def _recorded(_: Checkpoint, source: Source, scope: Scope, on_bytes: OnBytes) -> list[Fault]:
    from models.checkpoints.hub import record_source  # noqa: PLC0415

    return record_source(source, scope, on_bytes)


def _adopt(checkpoint: Checkpoint) -> None:
    """Record what lies in a folder; one that may not be written to is served without a check."""
    from models.checkpoints.register import adopt  # noqa: PLC0415

    scope = Scope.of_folder(Path(checkpoint.source))
    if scope.read() is None and not scope.can_write():
        _say(f"{scope.root} may not be written to: it is added without a manifest to check")
        return
    with _hashing(_size(scope)) as on_bytes:
        adopt(checkpoint, on_bytes)


def _sources(checkpoint: Checkpoint) -> list[Source]:
    from models.checkpoints.sources import sources_of  # noqa: PLC0415

    return sources_of(checkpoint)


def _ask_licence(known: str | None) -> str:
    """Ask for the licence where somebody can answer; else it is what the hub says, or unknown."""
    default = known or "unknown"
    if not sys.stdin.isatty():
        return default
    return str(typer.prompt("Its licence", default=default))


def _own() -> str:
    return Settings().own_catalog()


def _size(scope: Scope) -> int:
    return sum((scope.root / path).stat().st_size for path in scope.files())


def _say(text: str) -> None:
    _out.print(text, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def _hashing(total_bytes: int | None = None) -> Iterator[OnBytes]:
    """Show a bar of what has been hashed, once there is something."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as progress:
        task = progress.add_task("hashing", total=total_bytes, visible=total_bytes is not None)
        yield lambda num_bytes: progress.update(task, advance=num_bytes, visible=True)
