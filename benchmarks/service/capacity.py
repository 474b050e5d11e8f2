"""How many pictures a second a number of engines makes, what gives way first, and what it costs.

    python -m benchmarks.service.capacity  the plan of docs/performance.md, and its plot
    python -m benchmarks.service.capacity --cards mine.csv    the same with what your cards measure

A model of four resources, each with the pictures a second that it can carry: engines, cores of the
fronts, the event loops of the fronts, and the network. The least of them is the capacity. All
inputs are measured figures or marked as assumed; nothing is fitted.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

_PLOT = Path(__file__).parents[2] / "docs" / "images" / "scaling.png"
_CARDS = Path(__file__).parents[1] / "results" / "cards.csv"
_COUNTS = (1, 2, 4, 8, 16, 64, 256, 1024)


@dataclass(frozen=True)
class Measured:
    """What a picture costs, as measured: times in milliseconds, sizes in bytes.

    `step_ms` is one UNet call with `batch` rows; `encode_ms` and `decode_ms` are a row's.
    `front_core_ms` is the processor time of the front for a picture over all its threads,
    `front_loop_ms` the part of it on the event loop, which is one thread a front.
    """

    name: str
    step_ms: float
    batch: int
    encode_ms: float
    decode_ms: float
    steps: int = 4
    front_core_ms: float = 9.0
    front_loop_ms: float = 2.0
    bytes_in: int = 110_000
    bytes_out: int = 110_000
    engine_price_per_hour: float = 0.0
    core_price_per_hour: float = 0.04


@dataclass(frozen=True)
class Fleet:
    """What is rented: engines, fronts with their cores, and the network before them."""

    engines: int
    fronts: int
    cores_per_front: int = 4
    network_gbit: float = 10.0  # of each front's machine, each way


@dataclass(frozen=True)
class Capacity:
    """Pictures a second of a fleet, by resource, and what they cost."""

    engines: float
    front_cores: float
    front_loops: float
    network: float
    dollars_per_million: float

    @property
    def pictures_per_s(self) -> float:
        return min(self.engines, self.front_cores, self.front_loops, self.network)

    @property
    def bottleneck(self) -> str:
        """What saturates first."""
        limits = {
            "engines": self.engines,
            "front cores": self.front_cores,
            "front event loops": self.front_loops,
            "network": self.network,
        }
        return min(limits, key=limits.__getitem__)


def engine_pictures_per_s(measured: Measured) -> float:
    """Return what one engine makes when every slot is always taken."""
    per_picture_ms = (
        measured.steps * measured.step_ms / measured.batch + measured.encode_ms + measured.decode_ms
    )
    return 1000 / per_picture_ms


def capacity(measured: Measured, fleet: Fleet) -> Capacity:
    """Return what a fleet carries."""
    way = max(measured.bytes_in, measured.bytes_out)
    engines = fleet.engines * engine_pictures_per_s(measured)
    front_cores = fleet.fronts * fleet.cores_per_front * 1000 / measured.front_core_ms
    front_loops = fleet.fronts * 1000 / measured.front_loop_ms
    network = fleet.fronts * fleet.network_gbit * 1e9 / 8 / way
    pictures_per_hour = 3600 * min(engines, front_cores, front_loops, network)
    dollars_per_hour = (
        fleet.engines * measured.engine_price_per_hour
        + fleet.fronts * fleet.cores_per_front * measured.core_price_per_hour
    )
    return Capacity(
        engines, front_cores, front_loops, network, 1e6 * dollars_per_hour / pictures_per_hour
    )


def fleet_for(measured: Measured, engines: int, *, spare: float = 1.3) -> Fleet:
    """Return the fewest fronts that keep `engines` busy with something to spare."""
    fronts = 1
    wanted = spare * engines * engine_pictures_per_s(measured)
    while True:
        fleet = Fleet(engines, fronts)
        carried = capacity(measured, replace(fleet, engines=10**9))
        if carried.pictures_per_s >= wanted:
            return fleet
        fronts += max(1, fronts // 8)


def plan(measured: Measured) -> list[dict[str, float | int | str]]:
    """Return a row for each count of engines."""
    rows: list[dict[str, float | int | str]] = []
    for engines in _COUNTS:
        fleet = fleet_for(measured, engines)
        carried = capacity(measured, fleet)
        rows.append(
            {
                "card": measured.name,
                "engines": engines,
                "fronts": fleet.fronts,
                "pictures_per_s": round(carried.pictures_per_s, 1),
                "with_one_front": round(capacity(measured, Fleet(engines, 1)).pictures_per_s, 1),
                "then_limited_by": capacity(measured, Fleet(engines, 1)).bottleneck,
                "gbit_per_s": round(8e-9 * carried.pictures_per_s * measured.bytes_in, 2),
                "dollars_per_million": round(carried.dollars_per_million, 2),
            }
        )
    return rows


def plot(plans: list[list[dict[str, float | int | str]]], path: Path) -> None:
    """Draw pictures a second over engines, with one front and with as many as are needed."""
    import matplotlib as mpl  # noqa: PLC0415 - seconds, and only here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=110)
    for rows in plans:
        counts = [row["engines"] for row in rows]
        (line,) = axes.loglog(counts, [row["pictures_per_s"] for row in rows], marker="o",
                              label=f"{rows[0]['card']}, fronts as needed")  # fmt: skip
        axes.loglog(counts, [row["with_one_front"] for row in rows], linestyle=":",
                    color=line.get_color(), label=f"{rows[0]['card']}, one front")  # fmt: skip
    axes.set_xlabel("engines")
    axes.set_ylabel("pictures a second, 512 x 512, 4 steps")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cards", type=Path, default=_CARDS)
    parser.add_argument("--plot", type=Path, default=_PLOT)
    arguments = parser.parse_args()
    with arguments.cards.open() as file:
        cards = [read_card(row) for row in csv.DictReader(file)]
    plans = [plan(card) for card in cards]
    for rows in plans:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        Console().print(table)
    plot(plans, arguments.plot)
    json.dump([asdict(card) for card in cards], sys.stdout)


def read_card(row: dict[str, str]) -> Measured:
    """Read a row of the table of cards, whose columns are the fields of `Measured`."""
    numbers = {name: float(value) for name, value in row.items() if name in _NUMBERS and value}
    whole = {name: int(numbers[name]) for name in _WHOLE if name in numbers}
    return Measured(name=row["name"], **{**numbers, **whole})  # type: ignore[arg-type]


_WHOLE = {"batch", "steps", "bytes_in", "bytes_out"}
_NUMBERS = set(Measured.__dataclass_fields__) - {"name"}


if __name__ == "__main__":
    main()
