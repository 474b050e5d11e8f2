"""`instant-refine keys`: make, list and revoke the keys of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.api_keys import KeyFileError, KeyRecord, new_record, read_keys, write_keys

_SHOWN_DIGITS = 12

app = typer.Typer(
    help="Make, list and revoke the keys of a file. A server notices within seconds.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FileOption = Annotated[
    Path, typer.Option("--file", envvar="REFINE_KEYS_FILE", help="The file of keys")
]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="Whose key it is, as logs will call it")]

_out = Console()


@app.command()
def new(
    key_id: KeyId,
    file: FileOption,
    limits: Annotated[
        str, typer.Option(help="Such as concurrent=16,rate=10/s,sockets=4; else the service's own")
    ] = "",
) -> None:
    """Make a key and print it, this once: the file holds its digest alone.

    An id may have several keys, so that a new one can be handed out before the old one ends.
    """
    records = _records(file)
    key, record = new_record(key_id, limits)
    write_keys(file, [*records, record])
    typer.echo(key)


@app.command("list")
def list_keys(file: FileOption) -> None:
    """List ids, the beginnings of their digests, and their limits."""
    table = Table("id", "sha256", "limits")
    for record in read_keys(file):
        table.add_row(record.id, record.digest.hex()[:_SHOWN_DIGITS], record.limits)
    _out.print(table)


@app.command()
def revoke(
    key_id: KeyId,
    file: FileOption,
    sha256: Annotated[
        str, typer.Option(help="Revoke the one key of the id whose digest begins so")
    ] = "",
) -> None:
    """End all keys of an id, or one of them."""
    records = read_keys(file)
    kept = [record for record in records if not _is_meant(record, key_id, sha256)]
    if len(kept) == len(records):
        raise KeyFileError(f"{file} holds no such key of {key_id}; see instant-refine keys list")
    write_keys(file, kept)
    typer.echo(f"{len(records) - len(kept)} revoked")


def _records(file: Path) -> list[KeyRecord]:
    return read_keys(file) if file.exists() else []


def _is_meant(record: KeyRecord, key_id: str, sha256: str) -> bool:
    return record.id == key_id and record.digest.hex().startswith(sha256.lower())
