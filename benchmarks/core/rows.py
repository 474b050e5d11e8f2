"""Rows of measurements: kept in a committed table, where the next run finds what is done."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a table. A column that is new to it is empty in the rows before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = read_rows(path)
    names = list(dict.fromkeys([*(before[0] if before else ()), *row]))
    if before and names == list(before[0]):
        with path.open("a", newline="") as file:
            csv.DictWriter(file, names).writerow(row)
    else:
        _write(path, names, [*before, row])


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none of one that is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file, restval="", strict=True))


def _write(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    fresh = path.with_suffix(".tmp")
    with fresh.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    fresh.replace(path)


class Results:
    """The rows of one code under equal conditions, in a table that holds others, too.

    `key` names the columns that tell one measurement from another, `beside` is what all rows of
    this run have in common. With `anew` nothing counts as done before this run measures it.
    """

    def __init__(
        self, path: Path, key: Sequence[str], beside: Mapping[str, Any], *, anew: bool = False
    ) -> None:
        self.added: list[Row] = []
        self._path, self._key, self._beside = path, tuple(key), dict(beside)
        self._before = [] if anew else [row for row in read_rows(path) if self._is_alike(row)]

    @property
    def rows(self) -> list[Row]:
        """The newest row of each measurement, earlier runs' first."""
        newest = {self._name(row): row for row in (*self._before, *self.added)}
        return list(newest.values())

    def is_done(self, **key: object) -> bool:
        """Tell whether there is a row of this measurement."""
        return tuple(str(key[name]) for name in self._key) in map(self._name, self.rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row at once, so that a run that is cut loses none."""
        whole = {**row, **self._beside}
        append_row(self._path, whole)
        self.added.append(whole)

    def _name(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in self._key)

    def _is_alike(self, row: Mapping[str, str]) -> bool:
        return all(row.get(name) == str(value) for name, value in self._beside.items())
