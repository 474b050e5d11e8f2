"""How often a painter's frames are worth sending, by how long they have taken."""

from __future__ import annotations

_WEIGHT = 0.2
_SHARE_OF_MEAN = 1 / 8
"""How old a frame may be when its turn comes, in the time that a frame takes."""

_LONGEST_INTERVAL_MS = 250.0
_SLOW_MS = 1500.0
_PAUSE_MS = 250.0


class FramePacer:
    """The mean time of frames, from the beginning of their turn to their answer, smoothed."""

    def __init__(self, mean_ms: float | None = None) -> None:
        self.mean_ms = mean_ms

    def add(self, elapsed_ms: float) -> None:
        """Count a frame in."""
        if self.mean_ms is None:
            self.mean_ms = elapsed_ms
        self.mean_ms += _WEIGHT * (elapsed_ms - self.mean_ms)

    @property
    def interval_ms(self) -> float:
        """The least time between two frames: what comes faster is replaced before its turn."""
        return min(_SHARE_OF_MEAN * (self.mean_ms or 0.0), _LONGEST_INTERVAL_MS)

    @property
    def pause_ms(self) -> float:
        """How long the pen should rest before a frame is sent.

        0 while frames are fast. Where one takes long, it had better hold the whole stroke.
        """
        return _PAUSE_MS if (self.mean_ms or 0.0) > _SLOW_MS else 0.0

    def to_content(self) -> dict[str, float | None]:
        """Return the pace in the words of the wire."""
        return {
            "meanMs": None if self.mean_ms is None else round(self.mean_ms, 1),
            "intervalMs": round(self.interval_ms, 1),
            "pauseMs": self.pause_ms,
        }
