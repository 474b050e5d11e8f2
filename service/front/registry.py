"""What this server serves, by name: checkpoints, styles and thumbnails. A name is no path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from models.checkpoints.catalog import Checkpoint, Pace, find_checkpoints, load_catalog
from models.styles.presets import Style, load_styles
from service.errors import ValidationFailed
from service.front.images.thumbnails import Thumbnail, read_thumbnails
from service.front.schemas.requests import RefineRequest, Resolved
from service.protocol.jobs import GenerationParams
from service.protocol.messages import Ready
from service.settings import Settings

Row = TypeVar("Row")


@dataclass(frozen=True)
class Served:
    """The tables that a request's names are looked up in; the first checkpoint is the default.

    `known` are all of the catalogues, loaded or not.
    """

    checkpoints: Mapping[str, Checkpoint]
    known: Mapping[str, Checkpoint]
    styles: Mapping[str, Style]
    thumbnails: Mapping[str, Thumbnail]

    @classmethod
    def of(cls, settings: Settings) -> Served:
        """Read the tables. Raises CheckpointError for a checkpoint or styles that are none."""
        own, styles = settings.own_catalog(), load_styles(settings.styles)
        loaded = find_checkpoints(settings.model_names(), own)
        return cls(loaded, {**loaded, **load_catalog(own)}, styles, read_thumbnails(styles))

    @property
    def default(self) -> Checkpoint:
        """The checkpoint of requests that name none."""
        return next(iter(self.checkpoints.values()))

    def choose(self, request: RefineRequest, pace: Pace) -> Resolved:
        """Look up what a request names, and the defaults of its route's pace.

        Raises ValidationFailed for a style or checkpoint that is not served.
        """
        checkpoint = self.default
        if request.model_id is not None:
            checkpoint = _look_up(request.model_id, self.checkpoints, "modelId")
        style = _look_up(request.style or "NONE", self.styles, "style")
        return Resolved(checkpoint, style, checkpoint.defaults_of(pace))


def check_fits(params: GenerationParams, ready: Ready | None) -> None:
    """Raise ValidationFailed for a style whose LoRA does not fit the checkpoint.

    A picture made without it would be wrong without a word.
    """
    if ready is not None and params.style in ready.misfits.get(params.model, ()):
        raise ValidationFailed(
            f"style {params.style} is not available for the checkpoint {params.model}: its LoRA "
            "does not fit it; see /v1/styles",
            path="$.style",
        )


def _look_up(name: str, table: Mapping[str, Row], field: str) -> Row:
    if name not in table:
        raise ValidationFailed(f"{field} must be one of {', '.join(table)}", path=f"$.{field}")
    return table[name]
