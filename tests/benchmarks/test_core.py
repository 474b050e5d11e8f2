"""What all commands share: rows, resuming, the budget, interleaving and the floor."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from benchmarks.core import environment
from benchmarks.core.budget import Budget
from benchmarks.core.experiment import Case, Experiment, Session, conduct
from benchmarks.core.flops import Cost, request_floor_ms, unet_cost, vae_costs
from benchmarks.core.random_checkpoint import SIZES, autoencoder_of, unet_of
from benchmarks.core.roofline import Roofline
from benchmarks.core.rows import Results, Row, append_row, read_rows
from benchmarks.core.timing import MIN_ROUNDS, interleave

CONDITIONS = {"commit": "abc", "threads": 2}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def session(seconds: float, clock: Clock | None = None) -> Session:
    return Session(Budget(seconds, clock or Clock()), Progress(disable=True))


def test_new_column(tmp_path: Path) -> None:
    """A new column is empty in earlier rows, and no value moves to another column."""
    path = tmp_path / "new" / "table.csv"
    append_row(path, {"lane": "A", "ms": 3})
    append_row(path, {"lane": "B", "gain": 2})
    append_row(path, {"gain": 4, "lane": "C", "ms": 1})
    assert read_rows(path) == [
        {"lane": "A", "ms": "3", "gain": ""},
        {"lane": "B", "ms": "", "gain": "2"},
        {"lane": "C", "ms": "1", "gain": "4"},
    ]


def test_rows_of_equal_conditions_are_done(tmp_path: Path) -> None:
    """A case is done if it has a row of the same code and machine; with `anew` none is."""
    path = tmp_path / "table.csv"
    Results(path, ("lane", "size"), CONDITIONS).add({"lane": "A", "size": 512, "ms": 3})
    again = Results(path, ("lane", "size"), CONDITIONS)
    assert again.is_done(lane="A", size=512)
    assert not again.is_done(lane="A", size=640)
    for change in ({"commit": "abd"}, {"threads": 1}, {"card": "another"}):
        other = Results(path, ("lane", "size"), CONDITIONS | change)
        assert not other.is_done(lane="A", size=512)
    anew = Results(path, ("lane", "size"), CONDITIONS, anew=True)
    assert not anew.is_done(lane="A", size=512)
    anew.add({"lane": "A", "size": 512, "ms": 4})
    assert anew.is_done(lane="A", size=512)
    assert [row["ms"] for row in anew.rows] == [4]
    assert [row["ms"] for row in Results(path, ("lane", "size"), CONDITIONS).rows] == ["4"]


class Squares(Experiment):
    """Squares of numbers; 3 fails the run."""

    title, table, key, columns = "squares", "squares", ("number",), ("number", "square")

    def __init__(self) -> None:
        super().__init__(CONDITIONS)
        self.ran: list[int] = []

    def groups(self) -> Sequence[Sequence[Case]]:
        return [[{"number": 1}, {"number": 2}], [{"number": 3}]]

    def run(self, cases: Sequence[Case], session: Session) -> Iterator[Row]:
        for case in session.each(cases, "squares"):
            self.ran.append(case["number"])
            if case["number"] == 3:
                self.faults["3"] = "3 is odd"
                return
            yield {**case, "square": case["number"] ** 2}


def test_conduct(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without time nothing runs; then all does, a fault fails the run, and rows are not redone."""

    def conducted(budget: float) -> tuple[list[int], dict[str, Any]]:
        squares = Squares()
        arguments = argparse.Namespace(budget=budget, results=tmp_path, anew=False)
        if budget:
            with pytest.raises(SystemExit, match="3 is odd"):
                conduct([squares], arguments)
        else:
            conduct([squares], arguments)
        return squares.ran, json.loads(capsys.readouterr().out)

    assert conducted(0) == ([], {"rows": [], "left": ["number 1", "number 2", "number 3"]})
    ran, summary = conducted(100)
    assert (ran, summary["left"]) == ([1, 2, 3], ["number 3"])
    assert summary["rows"] == [{"number": n, "square": n * n, **CONDITIONS} for n in (1, 2)]
    ran, summary = conducted(100)
    assert (ran, summary["rows"]) == ([3], [])


def test_code_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed code has another version, committed or not; a new row does not change it."""
    monkeypatch.setattr(environment, "_ROOT", tmp_path)
    assert environment.code_version().startswith("unknown-dirty-")
    (tmp_path / "models").mkdir()
    code = tmp_path / "models" / "a.py"
    before = environment.code_version()
    code.write_text("a = 1")
    after = environment.code_version()
    append_row(tmp_path / "benchmarks" / "results" / "table.csv", {"ms": 1})
    assert before != after == environment.code_version()


def test_budget() -> None:
    """What is left shrinks with the clock to zero; a part begins when it is made."""
    clock = Clock()
    budget = Budget(10, clock)
    clock.now += 4
    part = budget.part(0.5)
    assert (budget.left_s, part.left_s) == (6, 3)
    clock.now += 3
    assert part.is_spent
    assert not budget.is_spent
    clock.now += 100
    assert (budget.is_spent, budget.left_s) == (True, 0)


def logged(log: list[str], name: str, clock: Clock) -> Callable[[], str]:
    def call() -> str:
        log.append(name)
        clock.now += 1
        return name

    return call


@pytest.mark.parametrize(
    ("seconds", "kept"), [(104, 50), (4 + 2 * MIN_ROUNDS + 3, MIN_ROUNDS + 2), (0, MIN_ROUNDS)]
)
def test_interleave(seconds: int, kept: int) -> None:
    """Calls run A-B-A-B after the warm-ups; the budget stops them between rounds, after three."""
    clock, log = Clock(), list[str]()
    calls = {name: logged(log, name, clock) for name in "AB"}
    seen = interleave(calls, session(seconds, clock), rounds=50, warm_ups=2)
    assert "".join(log) == "AABB" + kept * "AB"
    assert seen == {"A": kept * ["A"], "B": kept * ["B"]}


@pytest.mark.parametrize(
    ("name", "weights", "side", "tera"),
    [
        ("sd15", 860e6, 512, 0.803),
        ("sd15", 860e6, 640, 1.361),
        ("sd15", 860e6, 1024, 4.674),
        ("sdxl", 2568e6, 512, 1.589),
        ("sdxl", 2568e6, 1024, 6.761),
    ],
)
def test_unet_flops(name: str, weights: float, side: int, tera: float) -> None:
    """The operations and weights of full-size UNets are those of the published floor."""
    with torch.device("meta"):
        unet = unet_of(SIZES[name])
    cost = unet_cost(unet, 2, side // 8, side // 8)
    assert cost.flops / 1e12 == pytest.approx(tera, abs=0.001)
    assert cost.weight_bytes == pytest.approx(2 * weights, rel=0.001)


def test_autoencoder_flops() -> None:
    """The same for its autoencoder at 512."""
    with torch.device("meta"):
        vae = autoencoder_of(SIZES["sd15"])
    costs = vae_costs(vae, 2, 512, 512)
    assert costs["encode"].flops / 1e12 == pytest.approx(1.117, abs=0.001)
    assert costs["decode"].flops / 1e12 == pytest.approx(2.515, abs=0.001)


def test_floor() -> None:
    """The floor is the slower of arithmetic and reading; more rows read the weights once."""
    roofline = Roofline(tflops=1.0, gb_per_s=1.0)
    small, large = Cost(flops=1e9, weight_bytes=5e6), Cost(flops=8e9, weight_bytes=1e6)
    assert (small.floor_ms(roofline), small.floor_ms(roofline, rows=8)) == (5, 8)
    costs = {"unet": large, "encode": small, "decode": small, "tiny_encode": Cost(1e9, 0),
             "tiny_decode": Cost(2e9, 0)}  # fmt: skip
    assert request_floor_ms(costs, roofline, 4) == 4 * 8 + 2 * 5
    assert request_floor_ms(costs, roofline, 4, is_tiny=True) == 4 * 8 + 3
