"""What measurements share: kept rows, a budget, turns; and what is counted, not measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.core import environment as conditions
from benchmarks.core.budget import Budget
from benchmarks.core.flops import Work, _call_unet, _codec, _work, request_floor_ms
from benchmarks.core.random_checkpoint import SIZES, autoencoder_of, unet_of
from benchmarks.core.roofline import Ceiling
from benchmarks.core.rows import Results, append_row, read_rows
from benchmarks.core.timing import LEAST_ROUNDS, Call, take_turns

BESIDE = {"commit": "abc", "threads": 2}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_new_column_is_empty_in_the_rows_before(tmp_path: Path) -> None:
    """A table grows with its benchmark, and no value slips under another's name."""
    path = tmp_path / "new" / "table.csv"
    append_row(path, {"lane": "A", "ms": 3})
    append_row(path, {"lane": "B", "gain": 2})
    append_row(path, {"gain": 4, "lane": "C", "ms": 1})
    assert read_rows(path) == [
        {"lane": "A", "ms": "3", "gain": ""},
        {"lane": "B", "ms": "", "gain": "2"},
        {"lane": "C", "ms": "1", "gain": "4"},
    ]


def test_what_has_a_row_under_equal_conditions_is_done(tmp_path: Path) -> None:
    """A run finds the rows of the same code and machine, and of no other; anew it finds none."""
    path = tmp_path / "table.csv"
    Results(path, ("lane", "size"), BESIDE).add({"lane": "A", "size": 512, "ms": 3})
    again = Results(path, ("lane", "size"), BESIDE)
    assert again.is_done(lane="A", size=512)
    assert not again.is_done(lane="A", size=640)
    for change in ({"commit": "abd"}, {"threads": 1}, {"card": "another"}):
        assert not Results(path, ("lane", "size"), BESIDE | change).is_done(lane="A", size=512)
    anew = Results(path, ("lane", "size"), BESIDE, anew=True)
    assert not anew.is_done(lane="A", size=512)
    anew.add({"lane": "A", "size": 512, "ms": 4})
    assert anew.is_done(lane="A", size=512)
    assert [row["ms"] for row in anew.rows] == [4]
    assert [row["ms"] for row in Results(path, ("lane", "size"), BESIDE).rows] == ["4"]


def test_a_kept_row_leaves_the_code_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another code has another version, committed or not; rows that were written have not."""
    monkeypatch.setattr(conditions, "_ROOT", tmp_path)
    assert conditions.code_version().startswith("unknown-dirty-")
    (tmp_path / "models").mkdir()
    code = tmp_path / "models" / "a.py"
    before = conditions.code_version()
    code.write_text("a = 1")
    after = conditions.code_version()
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    append_row(tmp_path / "benchmarks" / "results" / "table.csv", {"ms": 1})
    assert before != after == conditions.code_version()


def test_a_budget_ends() -> None:
    """What is left shrinks with the clock, never below nothing; a part begins when it is taken."""
    clock = Clock()
    budget = Budget(10, clock)
    clock.now += 4
    part = budget.part(0.5)
    assert (budget.left_s, part.left_s) == (6, 3)
    clock.now += 3
    assert part.is_spent
    assert not budget.is_spent
    clock.now += 100
    assert budget.is_spent
    assert budget.left_s == 0


def logged(log: list[str], name: str, clock: Clock | None = None) -> Call:
    def call() -> None:
        log.append(name)
        if clock is not None:
            clock.now += 1

    return call


def test_calls_take_turns() -> None:
    """A-B-A-B after the warm-ups, a time for each."""
    log: list[str] = []
    calls = {name: logged(log, name) for name in "AB"}
    seen = take_turns(calls, rounds=3, warm_ups=2, budget=Budget(100))
    assert "".join(log) == "AABB" + "ABABAB"
    assert [len(seconds) for seconds in seen.values()] == [3, 3]


@pytest.mark.parametrize(
    ("seconds", "kept"), [(100, 50), (2 * LEAST_ROUNDS + 3, LEAST_ROUNDS + 2), (0, LEAST_ROUNDS)]
)
def test_a_budget_stops_the_turns_between_rounds(seconds: int, kept: int) -> None:
    """No round is cut in the middle, and what is warm runs often enough to tell anything."""
    clock, log = Clock(), []  # type: ignore[var-annotated]
    calls = {name: logged(log, name, clock) for name in "AB"}
    seen = take_turns(calls, rounds=50, warm_ups=0, budget=Budget(seconds, clock))
    assert "".join(log) == kept * "AB"
    assert [len(times) for times in seen.values()] == [kept, kept]


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
def test_the_work_of_a_unet_is_that_of_the_published_floor(
    name: str, weights: float, side: int, tera: float
) -> None:
    """Of full-size UNets, counted on meta tensors: the table that targets are set by."""
    with torch.device("meta"):
        unet = unet_of(SIZES[name])
    work = _work(unet, 2, lambda: _call_unet(unet, side // 8, side // 8))
    assert work.flops / 1e12 == pytest.approx(tera, abs=0.001)
    assert work.weight_bytes == pytest.approx(2 * weights, rel=0.001)


def test_the_work_of_an_autoencoder_is_that_of_the_published_floor() -> None:
    """The same of its encoder and decoder at 512."""
    with torch.device("meta"):
        vae = autoencoder_of(SIZES["sd15"])
    work = _codec("", vae, 2, (512, 512), (64, 64))
    assert work["encode"].flops / 1e12 == pytest.approx(1.117, abs=0.001)
    assert work["decode"].flops / 1e12 == pytest.approx(2.515, abs=0.001)


def test_a_floor_is_of_arithmetic_or_of_reading() -> None:
    """The slower of both holds a call; more rows read the weights but once."""
    ceiling = Ceiling(tflops=1.0, gb_per_s=1.0)
    small, large = Work(flops=1e9, weight_bytes=5e6), Work(flops=8e9, weight_bytes=1e6)
    assert (small.floor_ms(ceiling), small.floor_ms(ceiling, rows=8)) == (5, 8)
    parts = {"unet": large, "encode": small, "decode": small, "tiny_encode": Work(1e9, 0),
             "tiny_decode": Work(2e9, 0)}  # fmt: skip
    assert request_floor_ms(parts, ceiling, 4) == 4 * 8 + 2 * 5
    assert request_floor_ms(parts, ceiling, 4, is_tiny=True) == 4 * 8 + 3
