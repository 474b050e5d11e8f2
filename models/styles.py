"""The styles of the API as data: a style is a row of `styles.toml`, and no code."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    from collections.abc import Mapping

_SLOT = "{prompt}"


class Style(BaseModel):
    """How a style turns the caller's words into the prompt that the model reads.

    `guidance` and `strength` are what a request gets that leaves them out, in its own units.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    prompt: str
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
def load_styles() -> Mapping[str, Style]:
    """Return the styles by their name on the wire, in the order of the file.

    Raises ValueError for a row that is not a style.
    """
    rows = tomllib.loads(resources.files("models").joinpath("styles.toml").read_text("utf-8"))
    return MappingProxyType({name: Style(name=name, **row) for name, row in rows.items()})
