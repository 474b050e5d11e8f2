"""The checkpoints that are known by name, as data. Reads no weights and imports no torch."""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from models.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BUNDLED = "bundled"
Pace = Literal["refine", "live"]
"""What a route's defaults are chosen for: quality, or latency."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w./-]*)?")


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
    argument: str = ""  # what names it to the commands, where it has no row
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

    @property
    def told(self) -> str:
        """What names this very checkpoint to the commands."""
        return self.argument or self.name

    @property
    def guidance_told(self) -> str:
        """The guidance that it was trained on, or how it is guided without an embedding."""
        if self.guidance_trained is not None:
            return "{:g} to {:g}".format(*self.guidance_trained)
        return "doubled rows" if self.lora is not None else "unknown"

    def defaults_of(self, pace: Pace) -> Defaults:
        """Return the defaults of a route that wants quality, or of one that wants speed."""
        if pace == "refine":
            return self.defaults
        live = dict(self.live)
        if self.tiny is None:  # there is no faster one
            del live["autoencoder"]
        return self.defaults.model_copy(update=live)


def load_catalog(own: str = "") -> Mapping[str, Checkpoint]:
    """Return the known checkpoints by name: ours, then those of the user's file `own`, if any.

    Each in the order of its file. Raises CheckpointError for a file that holds no checkpoints, or
    one by a name of ours; a file that is not there holds none.
    """
    return MappingProxyType({**_bundled(), **(_read_own(Path(own)) if own else {})})


def find_checkpoint(model: str, own: str = "") -> Checkpoint:
    """Return the checkpoint of a catalogue name, a folder, or a hub id `ORG/NAME[@REVISION]`.

    `own` is the user's catalogue file. Raises CheckpointError when `model` is none of them.
    """
    catalog = load_catalog(own)
    if model in catalog:
        return catalog[model]
    if model and Path(model).is_dir():
        folder = Path(model).resolve()
        name = folder.name
        return Checkpoint(name=name, title=name, source=str(folder), argument=str(folder))
    if is_hub_id(model) and not Path(model).exists():
        source, _, revision = model.partition("@")
        revision = revision or "main"
        return Checkpoint(
            name=source, title=source, source=source, revision=revision, argument=model
        )
    raise CheckpointError(
        f"no checkpoint {model!r}: give a name of the catalogue ({', '.join(catalog)}), "
        "a folder in diffusers' layout, or a hub id ORG/NAME[@REVISION]"
    )


def find_checkpoints(models: Sequence[str], own: str = "") -> dict[str, Checkpoint]:
    """Return several checkpoints by name, in their order.

    Raises CheckpointError as `find_checkpoint`, and where two have one name: `modelId` is it.
    """
    found: dict[str, Checkpoint] = {}
    for model in models:
        checkpoint = find_checkpoint(model, own)
        if checkpoint.name in found:
            raise CheckpointError(
                f"{model} and another checkpoint are both named {checkpoint.name}: give one a "
                "name of its own by `instant-refine models add`"
            )
        found[checkpoint.name] = checkpoint
    return found


def is_hub_id(text: str) -> bool:
    """Return whether a text has the form `ORG/NAME[@REVISION]`."""
    return _HUB_ID.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Return whether a text can name a checkpoint: no path, and no hub id."""
    return _NAME.fullmatch(text) is not None


@functools.cache
def _bundled() -> Mapping[str, Checkpoint]:
    rows = tomllib.loads(
        resources.files("models.checkpoints").joinpath("catalog.toml").read_text("utf-8")
    )
    return {name: Checkpoint(name=name, **row) for name, row in rows.items()}


def _read_own(path: Path) -> dict[str, Checkpoint]:
    try:
        rows = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # its text names the line
        raise CheckpointError(f"the catalogue {path} cannot be read: {error}") from error
    return {name: _own_checkpoint(path, name, row) for name, row in rows.items()}


def _own_checkpoint(path: Path, name: str, row: object) -> Checkpoint:
    if name in _bundled():
        raise CheckpointError(f"{path}: {name} is a name of the bundled catalogue: choose another")
    fields = row if isinstance(row, dict) else {"source": row}
    fields = {"title": name, **fields, "name": name}
    if is_hub_id(str(fields.get("source"))) and not Path(str(fields["source"])).exists():
        fields.setdefault("revision", "main")
    try:
        return Checkpoint.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: {name}: {field}: {first['msg']}") from error
