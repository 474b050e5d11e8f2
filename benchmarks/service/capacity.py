"""Pictures a second of a number of engines, the first bottleneck, and the cost.

    python -m benchmarks.service.capacity  the table and plot of docs/performance.md
    python -m benchmarks.service.capacity --cards mine.csv    the same with figures of your cards

A model of four resources, each with the pictures a second that it can carry: engines, cores of the
fronts, event loops of the fronts, and the network. The least of them is the capacity. All inputs
are measured figures or marked as assumed; nothing is fitted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from benchmarks.core.experiment import RESULTS
from benchmarks.core.report import draw_lines, print_table
from benchmarks.core.rows import Row, read_rows

_PLOT = Path(__file__).parents[2] / "docs" / "images" / "scaling.png"
_COUNTS = (1, 2, 4, 8, 16, 64, 256, 1024)
_SPARE = 1.3


@dataclass(frozen=True)
class Card:
    """Measured costs of a picture: times in milliseconds, sizes in bytes.

    `step_ms` is one UNet call with `batch` rows; `encode_ms` and `decode_ms` are a row's.
    `front_core_ms` is the processor time of the front for a picture over all its threads,
    `front_loop_ms` the part of it on the event loop, which is one thread a front.
    """

    name: str
    step_ms: float
    batch: float
    encode_ms: float
    decode_ms: float
    steps: float = 4
    front_core_ms: float = 9.0
    front_loop_ms: float = 2.0
    bytes_in: float = 110_000
    bytes_out: float = 110_000
    engine_price_per_hour: float = 0.0
    core_price_per_hour: float = 0.04

    @property
    def pictures_per_s(self) -> float:
        """Return what one engine makes when every slot is always taken."""
        step_ms = self.steps * self.step_ms / self.batch
        return 1000 / (step_ms + self.encode_ms + self.decode_ms)


@dataclass(frozen=True)
class Fleet:
    """Engines, and fronts with their cores and the network of each front's machine, each way."""

    engines: int
    fronts: int
    cores_per_front: int = 4
    network_gbit: float = 10.0


def carried(card: Card, fleet: Fleet) -> dict[str, float]:
    """Return pictures a second that each resource of a fleet carries."""
    return {
        "engines": fleet.engines * card.pictures_per_s,
        "front cores": fleet.fronts * fleet.cores_per_front * 1000 / card.front_core_ms,
        "front event loops": fleet.fronts * 1000 / card.front_loop_ms,
        "network": fleet.fronts * fleet.network_gbit * 1e9 / 8 / max(card.bytes_in, card.bytes_out),
    }


def fleet_for(card: Card, engines: int) -> Fleet:
    """Return about the fewest fronts that keep `engines` busy with 30 % to spare."""
    fronts = 1
    while True:
        fleet = Fleet(engines, fronts)
        if min(carried(card, replace(fleet, engines=10**9)).values()) >= (
            _SPARE * engines * card.pictures_per_s
        ):
            return fleet
        fronts += max(1, fronts // 8)


def plan(card: Card) -> list[Row]:
    """Return a row for each number of engines."""
    rows: list[Row] = []
    for engines in _COUNTS:
        fleet = fleet_for(card, engines)
        rate = min(carried(card, fleet).values())
        one_front = carried(card, Fleet(engines, 1))
        dollars_per_hour = (
            engines * card.engine_price_per_hour
            + fleet.fronts * fleet.cores_per_front * card.core_price_per_hour
        )
        rows.append(
            {
                "card": card.name,
                "engines": engines,
                "fronts": fleet.fronts,
                "pictures_per_s": round(rate, 1),
                "with_one_front": round(min(one_front.values()), 1),
                "then_limited_by": min(one_front, key=one_front.__getitem__),
                "gbit_per_s": round(8e-9 * rate * card.bytes_in, 2),
                "dollars_per_million": round(1e6 * dollars_per_hour / (3600 * rate), 2),
            }
        )
    return rows


def read_card(row: dict[str, str]) -> Card:
    """Read a row of the table of cards, whose columns are the fields of `Card`."""
    names = {field.name for field in fields(Card)} - {"name"}
    return Card(row["name"], **{name: float(row[name]) for name in names & row.keys() if row[name]})


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cards", type=Path, default=RESULTS / "cards.csv")
    parser.add_argument("--plot", type=Path, default=_PLOT)
    arguments = parser.parse_args(words)
    cards = [read_card(row) for row in read_rows(arguments.cards)]
    lines = []
    for card in cards:
        rows = plan(card)
        print_table(card.name, rows, list(rows[0]))
        for column, fronts in (
            ("pictures_per_s", "fronts as needed"),
            ("with_one_front", "one front"),
        ):
            rates = [row[column] for row in rows]
            lines.append((f"{card.name}, {fronts}", list(map(float, _COUNTS)), rates))
    labels = ("engines", "pictures a second, 512 x 512, 4 steps")
    draw_lines(arguments.plot, lines, labels, is_log=True)
    print(json.dumps([asdict(card) for card in cards]))


if __name__ == "__main__":
    main()
