"""What every measurement is: cases, a row for each, and one way to run them.

`conduct` skips cases that have a row under equal conditions, keeps each new row at once, stops when
the budget is spent, prints tables, draws plots, and ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress

from benchmarks.core.budget import Budget
from benchmarks.core.report import print_table
from benchmarks.core.rows import Results, Row

Case = dict[str, Any]
"""The columns that identify a measurement, and their values."""

T = TypeVar("T")

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Session:
    """The time that a run has left, and its progress bars."""

    budget: Budget
    progress: Progress

    def each(self, items: Sequence[T], title: str, share: float = 1.0) -> Iterator[T]:
        """Yield items until a share of the budget is spent, with a progress bar."""
        budget = self.budget.part(share) if share < 1 else self.budget
        task = self.progress.add_task(title, total=len(items))
        for item in items:
            if budget.is_spent:
                return
            yield item
            self.progress.advance(task)


class Experiment:
    """The protocol of a measurement. A subclass says which cases there are, and runs them.

    `table` is the name of its CSV file, `key` names the columns of a case, `columns` are printed.
    `conditions` are columns with equal values in all rows of a run: a row that was measured under
    other conditions does not count. `faults` fail the run after all rows are kept.
    """

    title: str
    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    results: Results
    """The rows of this run and of earlier ones. `conduct` sets it."""

    def __init__(self, conditions: Mapping[str, Any]) -> None:
        self.conditions = dict(conditions)
        self.faults: dict[str, str] = {}

    def missing(self, cases: Iterable[Case]) -> list[Case]:
        """Return the cases that have no row."""
        return [case for case in cases if not self.results.is_done(**case)]

    def groups(self) -> Sequence[Sequence[Case]]:
        """Return all cases, the most informative first. Cases of a group share one run."""
        raise NotImplementedError

    def run(self, cases: Sequence[Case], session: Session) -> Iterable[Row]:
        """Measure cases of one group that have no row, and yield each row when it is known."""
        raise NotImplementedError

    def plot(self, rows: Sequence[Row], folder: Path) -> None:
        """Draw what the rows show, if anything."""

    def judge(self, rows: Sequence[Row]) -> None:
        """Add to `faults` where a row, new or old, is not good enough."""


def add_run_arguments(parser: argparse.ArgumentParser, *, budget_s: float) -> None:
    """Add the arguments of every command."""
    parser.add_argument("--budget", type=float, default=budget_s, help="seconds, approximately")
    parser.add_argument("--anew", action="store_true", help="measure also cases that have a row")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of tables and plots")


def conduct(experiments: Sequence[Experiment], arguments: argparse.Namespace) -> None:
    """Run experiments within the budget and report. Raises SystemExit if one has a fault."""
    for one in experiments:
        path = arguments.results / f"{one.table}.csv"
        one.results = Results(path, one.key, one.conditions, anew=arguments.anew)
    with Progress(console=Console(stderr=True)) as progress:
        session = Session(Budget(arguments.budget), progress)
        for groups in zip_longest(*(one.groups() for one in experiments), fillvalue=()):
            for experiment, group in zip(experiments, groups, strict=True):
                missing = experiment.missing(group)
                if missing and not session.budget.is_spent:
                    for row in experiment.run(missing, session):
                        experiment.results.add(row)
    for one in experiments:
        print_table(one.title, one.results.rows, one.columns)
        if one.results.rows:
            one.plot(one.results.rows, arguments.results)
        one.judge(one.results.rows)
    added = [row for one in experiments for row in one.results.added]
    missing = [case for one in experiments for group in one.groups() for case in one.missing(group)]
    left = [", ".join(f"{name} {value}" for name, value in case.items()) for case in missing]
    print(json.dumps({"rows": added, "left": left}))
    if faults := [fault for one in experiments for fault in one.faults.values()]:
        sys.exit("; ".join(faults))
