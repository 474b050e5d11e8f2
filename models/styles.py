"""The styles of the API as data: a style is a row of `styles.toml`, and no code."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from models.catalog import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SLOT = "{prompt}"


class Style(BaseModel):
    """How a style turns the caller's words into the prompt that the model reads.

    `guidance` and `strength` are what a request gets that leaves them out, in its own units.
    `lora` is the path of a safetensors file, applied to the rows of the style alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    prompt: str
    lora: str | None = None
    lora_weight: float = Field(1.0, ge=-4, le=4)
    guidance: float | None = Field(None, ge=0.5, le=20)
    strength: float | None = Field(None, ge=0.1, le=1)

    @field_validator("prompt")
    @classmethod
    def _has_one_slot(cls, template: str) -> str:
        if template.count(_SLOT) != 1:
            raise ValueError(f"the template must hold {_SLOT} exactly once")
        return template

    def apply(self, prompt: str) -> str:
        """Put the caller's words into the template. Braces in the words stay as they are."""
        return self.prompt.replace(_SLOT, prompt)


@functools.cache
def load_styles(own: str = "") -> Mapping[str, Style]:
    """Return the styles by their name on the wire: ours, then those of the file `own`, if any.

    A style of the file takes the place of ours of the same name; its `lora` is found from where
    the file lies. Raises CheckpointError, with line and field, for a row that is not a style.
    """
    text = resources.files("models").joinpath("styles.toml").read_text("utf-8")
    styles = _parse(text, Path("styles.toml"))
    if own:
        try:
            styles |= _parse(Path(own).read_text("utf-8"), Path(own))
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"the styles in {own} cannot be read: {error}") from error
    return MappingProxyType(styles)


def _parse(text: str, path: Path) -> dict[str, Style]:
    try:
        rows = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # which tells the line
        raise CheckpointError(f"{path.name}: {error}") from error
    styles = {}
    for name, row in rows.items():
        try:
            style = Style.model_validate({**_fields(row), "name": name})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = str(first["loc"][0]) if first["loc"] else ""
            line = _line(text, name, field)
            raise CheckpointError(
                f"{path.name}, line {line}: {name}: {field}: {first['msg']}"
            ) from error
        if style.lora is not None:
            style = style.model_copy(update={"lora": str(path.parent / style.lora)})
        styles[name] = style
    return styles


def _fields(row: object) -> dict[str, object]:
    return row if isinstance(row, dict) else {"prompt": row}


def _line(text: str, name: str, field: str) -> int:
    """Return the line of a field in a style's table, or that of the table where it is missing."""
    start = 1
    is_inside = False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            is_inside = stripped.strip("[] \"'") == name
            start = number if is_inside else start
        elif is_inside and stripped.partition("=")[0].strip() == field:
            return number
    return start
