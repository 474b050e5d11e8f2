"""Rows of measurements, kept in committed CSV tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a table. Earlier rows are empty in a column that is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = read_rows(path)
    names = list(dict.fromkeys([*(before[0] if before else ()), *row]))
    if before and names == list(before[0]):
        with path.open("a", newline="") as file:
            csv.DictWriter(file, names).writerow(row)
        return
    fresh = path.with_suffix(".tmp")
    with fresh.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows([*before, row])
    fresh.replace(path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file, restval="", strict=True))


class Results:
    """The rows of one version of the code under equal conditions, in a table that has others, too.

    `key` names the columns that identify a measurement, `conditions` have one value in all rows of
    this run. With `anew` only rows of this run count.
    """

    def __init__(
        self, path: Path, key: Sequence[str], conditions: Mapping[str, Any], *, anew: bool = False
    ) -> None:
        self.added: list[Row] = []
        self._path, self._key, self._conditions = path, tuple(key), dict(conditions)
        self._before = [
            row
            for row in ([] if anew else read_rows(path))
            if all(row.get(name) == str(value) for name, value in conditions.items())
        ]

    @property
    def rows(self) -> list[Row]:
        """The newest row of each measurement, those of earlier runs first."""
        return list({self._name(row): row for row in (*self._before, *self.added)}.values())

    def is_done(self, **case: object) -> bool:
        """Return whether this measurement has a row."""
        return self._name(case) in map(self._name, self.rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row at once: an interrupted run loses none."""
        whole = {**row, **self._conditions}
        append_row(self._path, whole)
        self.added.append(whole)

    def _name(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in self._key)
