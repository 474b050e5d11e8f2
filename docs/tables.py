"""The generated tables of the documents: settings, checkpoints, and defaults of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from models.checkpoints.catalog import BUNDLED, load_catalog
from service.front.generation import ROUTES
from service.front.routes.models import default_fields
from service.settings import Settings

ROOT = Path(__file__).parent.parent
DOCUMENTS = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))

_FIELDS = ("steps", "strength", "guidance", "autoencoder")


def settings_table() -> str:
    """Return a row for each setting: its variable, default and description."""
    rows = [
        (f"`REFINE_{name.upper()}`", _default(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return _table(("variable", "default", "description"), rows)


def checkpoints_table() -> str:
    """Return a row for each checkpoint of the bundled catalogue."""
    rows = [
        (f"`{row.name}`", row.title, row.licence, _guidance(row.guidance_trained))
        for row in load_catalog().values()
    ]
    return _table(("name", "description", "licence", "trained guidance"), rows)


def sources_table() -> str:
    """Return a row for each repository of the catalogue, with its pinned commit."""
    rows = []
    for row in load_catalog().values():
        if row.source == BUNDLED:
            continue
        for part, source in {"itself": f"{row.source}@{row.revision}", **row.parts()}.items():
            repository, _, revision = source.partition("@")
            commit = f"`{revision}`" if revision else "follows `main`: no source confirms one"
            rows.append((f"`{row.name}`", part, f"`{repository}`", commit))
    return _table(("checkpoint", "part", "repository", "commit"), rows)


def defaults_table() -> str:
    """Return a row for each checkpoint and each group of routes with equal defaults."""
    rows = []
    for checkpoint in load_catalog().values():
        routes: dict[tuple[str, ...], list[str]] = {}
        for name, route in ROUTES.items():
            fields = default_fields(checkpoint, route)
            values = tuple(str(fields[name]).removesuffix(".0") for name in _FIELDS)
            routes.setdefault(values, []).append(f"`/{name}`")
        rows += [
            (f"`{checkpoint.name}`", ", ".join(names), *values) for values, names in routes.items()
        ]
    return _table(("checkpoint", "route", *(f"`{name}`" for name in _FIELDS)), rows)


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "checkpoints": checkpoints_table,
    "sources": sources_table,
    "defaults": defaults_table,
}


def with_tables(text: str) -> str:
    """Return a document with its generated tables up to date."""
    for name, table in TABLES.items():
        start, end = f"<!-- {name}, written by make docs -->\n", "<!-- end -->"
        before, found, rest = text.partition(start)
        if found:
            text = before + start + table() + end + rest.partition(end)[2]
    return text


def write_tables() -> None:
    """Write the generated tables into every document that has them."""
    for document in DOCUMENTS:
        document.write_text(with_tables(document.read_text("utf-8")), "utf-8")


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (titles, ["---"] * len(titles), *rows))


def _default(default: Any) -> str:
    if isinstance(default, SecretStr) or default in ("", None, ()):
        return "none"
    if isinstance(default, tuple):
        return f"`{','.join(map(str, default))}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _guidance(trained: tuple[float, float] | None) -> str:
    return "{:g} to {:g}".format(*trained) if trained else "classifier-free guidance"
