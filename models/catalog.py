"""The checkpoints that are known by name, as data. Reads no weights and imports no torch."""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Mapping

BUNDLED = "bundled"
Pace = Literal["refine", "live"]
"""What a route's defaults are chosen for: quality, or latency."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w./-]*)?")


class CheckpointError(Exception):
    """A checkpoint that cannot be used as it is; the message says what the operator can do."""


class Defaults(BaseModel):
    """What a request gets that leaves the field out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_inference_steps: int = 8
    strength: float = 0.5
    guidance_scale: float = 8.0
    autoencoder: Literal["full", "tiny"] = "full"


class LiveDefaults(BaseModel):
    """Where the defaults of the live-canvas pass differ: it wants speed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_inference_steps: int = 4
    autoencoder: Literal["full", "tiny"] = "tiny"


class Checkpoint(BaseModel):
    """A row of `catalog.toml`, or what is assumed of a folder or hub id without a row.

    `unet`, `vae`, `tiny` and `lora` are parts from elsewhere: a path, or a hub id
    `ORG/NAME[@REVISION]`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    source: str
    revision: str | None = None
    licence: str = "unknown"
    unet: str | None = None
    vae: str | None = None
    tiny: str | None = None
    lora: str | None = None
    guidance_trained: tuple[float, float] | None = None
    guidance_range: tuple[float, float] = (1.0, 2.0)
    defaults: Defaults = Defaults()
    live: LiveDefaults = LiveDefaults()

    def parts(self) -> dict[str, str]:
        """Return the parts that come from elsewhere, by name."""
        sources = {"unet": self.unet, "vae": self.vae, "tiny": self.tiny, "lora": self.lora}
        return {name: source for name, source in sources.items() if source is not None}

    def defaults_of(self, pace: Pace) -> Defaults:
        """Return the defaults of a route that wants quality, or of one that wants speed."""
        if pace == "refine":
            return self.defaults
        live = dict(self.live)
        if self.tiny is None:  # there is no faster one
            del live["autoencoder"]
        return self.defaults.model_copy(update=live)


@functools.cache
def load_catalog() -> Mapping[str, Checkpoint]:
    """Return the known checkpoints by name, in the order of the file."""
    rows = tomllib.loads(resources.files("models").joinpath("catalog.toml").read_text("utf-8"))
    return MappingProxyType({name: Checkpoint(name=name, **row) for name, row in rows.items()})


def find_checkpoint(model: str) -> Checkpoint:
    """Return the checkpoint of a catalogue name, a folder, or a hub id `ORG/NAME[@REVISION]`.

    Raises CheckpointError when `model` is none of them.
    """
    if model in load_catalog():
        return load_catalog()[model]
    if model and Path(model).is_dir():
        folder = Path(model).resolve()
        return Checkpoint(name=folder.name, title=folder.name, source=str(folder))
    if _HUB_ID.fullmatch(model) and not Path(model).exists():
        source, _, revision = model.partition("@")
        return Checkpoint(name=source, title=source, source=source, revision=revision or "main")
    known = ", ".join(load_catalog())
    raise CheckpointError(
        f"no checkpoint {model!r}: give a name of the catalogue ({known}), "
        "a folder in diffusers' layout, or a hub id ORG/NAME[@REVISION]"
    )
