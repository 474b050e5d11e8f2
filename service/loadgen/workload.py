"""What is asked of a server under load: request bodies, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from models.styles.presets import load_styles
from service.front.images.data_url import to_data_url
from service.front.schemas.requests import MAX_SEED
from service.loadgen.images import photograph_jpeg

_PROMPTS = (
    "a red house in a meadow",
    "a boat at sea under a yellow moon",
    "two green trees on a hill",
    "a white cloud in the sky",
)
_MIXED_SIDES = (512, 512, 512, 640)  # as most people ask: the smallest, now and then another


@dataclass(frozen=True)
class Trace:
    """Requests of one kind, or mixed in steps, strength, guidance, prompt, style and size.

    `picture` is a file's bytes to send; None sends noise with the spectrum of a photograph.
    """

    size: int = 512
    steps: int = 4
    is_mixed: bool = False
    seed: int = 0
    picture: bytes | None = None

    def bodies(self) -> Iterator[dict[str, Any]]:
        """Return request bodies without end. The pictures are made at once, not under load."""
        sides = set(_MIXED_SIDES) if self.is_mixed else {self.size}
        return self._endless({side: self._data_url(side) for side in sides})

    def _endless(self, pictures: dict[int, str]) -> Iterator[dict[str, Any]]:
        lot = random.Random(self.seed)  # noqa: S311 - to be the same again, not to be secret
        while True:
            fields = self._mixed(lot) if self.is_mixed else self._plain()
            fields["imageDataUrl"] = pictures[fields["width"]]
            fields["seed"] = lot.randint(0, MAX_SEED)
            yield fields

    def _plain(self) -> dict[str, Any]:
        sides = {"width": self.size, "height": self.size}
        return {"prompt": _PROMPTS[0], "steps": self.steps, "strength": 0.6, **sides}

    def _mixed(self, lot: random.Random) -> dict[str, Any]:
        side = lot.choice(_MIXED_SIDES)
        return {
            "prompt": lot.choice(_PROMPTS),
            "style": lot.choice(list(load_styles())),
            "steps": lot.randint(4, 16),
            "strength": lot.choice((0.3, 0.5, 0.7, 1.0)),
            "guidance": round(lot.uniform(1, 12), 1),
            "width": side,
            "height": side,
        }

    def _data_url(self, size: int) -> str:
        return to_data_url(self.picture or photograph_jpeg(size, size), "jpeg")
