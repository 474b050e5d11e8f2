"""The styles of the API as data: a style is a row of `styles.toml`, and no code."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from models.errors import CheckpointError

_SLOT = "{prompt}"
_PATHS = ("lora", "thumbnail")
_SAVED_AS = "pytorch_lora_weights.safetensors"  # by diffusers
_HUB_FILE = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@(?P<revision>[A-Za-z0-9][\w./-]*)"
    r"(:(?P<file>[\w-][\w./-]*\.safetensors))?"
)


class HubFile(NamedTuple):
    """A file of a repository of the hub, at a revision."""

    repository: str
    revision: str
    file: str


class StyleRow(BaseModel):
    """What stands in a style's table of a file.

    `guidance` and `strength` are what a request gets that leaves them out, in its own units.
    `lora` is a safetensors file, applied to the rows of the style alone: a path, or a hub id at a
    revision `ORG/NAME@REVISION[:FILE]`. `thumbnail` is the path of a small picture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    prompt: str
    lora: str | None = None
    lora_weight: float = Field(1.0, ge=-4, le=4)
    guidance: float | None = Field(None, ge=0.5, le=20)
    strength: float | None = Field(None, ge=0.1, le=1)
    thumbnail: str | None = None

    @field_validator("prompt")
    @classmethod
    def _has_one_slot(cls, template: str) -> str:
        if template.count(_SLOT) != 1:
            raise ValueError(f"the template must hold {_SLOT} exactly once")
        return template


class Style(StyleRow):
    """How a style turns the caller's words into the prompt that the model reads.

    Its paths are found from where its file lies; `places` says where each field stands in it.
    """

    name: str
    places: Mapping[str, str] = Field({}, exclude=True, repr=False)

    def apply(self, prompt: str) -> str:
        """Put the caller's words into the template. Braces in the words stay as they are."""
        return self.prompt.replace(_SLOT, prompt)

    def fault(self, field: str, sentence: str) -> CheckpointError:
        """Return an error that names the field, its line and the fault."""
        return CheckpointError(f"{self.places.get(field, self.name)}: {sentence}")


@functools.cache
def load_styles(own: str = "") -> Mapping[str, Style]:
    """Return the styles by their name on the wire: ours, then those of the file `own`, if any.

    A style of the file takes the place of ours of the same name. Raises CheckpointError, with line
    and field, for a row that is not a style.
    """
    ours = Path(str(resources.files("models.styles").joinpath("styles.toml")))
    styles = _parse(ours.read_text("utf-8"), ours)
    if own:
        try:
            styles |= _parse(Path(own).read_text("utf-8"), Path(own))
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"the styles in {own} cannot be read: {error}") from error
    return MappingProxyType(styles)


def _parse(text: str, path: Path) -> dict[str, Style]:
    try:
        rows = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # its text names the line
        raise CheckpointError(f"{path.name}: {error}") from error
    return {name: _to_style(name, row, text, path) for name, row in rows.items()}


def _to_style(name: str, row: object, text: str, path: Path) -> Style:
    def place(field: str) -> str:
        return f"{path.name}, line {_line(text, name, field)}: {name}: {field}"

    try:
        fields = StyleRow.model_validate(_fields(row)).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        raise CheckpointError(f"{place(field)}: {first['msg']}") from error
    for field in _PATHS:
        if field in fields:
            fields[field] = _found_from(path.parent, fields[field])
    return Style(name=name, places={field: place(field) for field in fields}, **fields)


def hub_file(lora: str) -> HubFile | None:
    """Return what a style's `lora` names on the hub; None where it is a path."""
    match = _HUB_FILE.fullmatch(lora)
    return match and HubFile(match["repository"], match["revision"], match["file"] or _SAVED_AS)


def _found_from(folder: Path, source: str) -> str:
    """Return an absolute path, from where the file of styles lies; a hub id stays as it is."""
    path = folder.absolute() / source
    return source if hub_file(source) and not path.exists() else str(path)


def _fields(row: object) -> dict[str, object]:
    return row if isinstance(row, dict) else {"prompt": row}


def _line(text: str, name: str, field: str) -> int:
    """Return the line of a field in a style's table, or that of the table where it is missing."""
    start = 1
    is_inside = False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            is_inside = stripped[1:].partition("]")[0].strip(" \"'") == name
            start = number if is_inside else start
        elif is_inside and stripped.partition("=")[0].strip() == field:
            return number
    return start
