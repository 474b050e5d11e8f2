"""All measurements in a row: what is left, what failed, and what a machine runs."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import suite
from benchmarks.core.budget import Budget
from benchmarks.core.environment import conditions
from benchmarks.core.rows import append_row
from benchmarks.suite import Step, cpu_steps, cuda_steps, run


class Modules:
    """Measurements that take `step_s` each on a clock by hand, and say what they have left."""

    def __init__(self, answers: dict[str, tuple[str, int]], step_s: float = 1.0) -> None:
        self.ran: list[str] = []
        self._answers = answers
        self._step_s = step_s
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def run(self, step: Step, _budget: Budget) -> subprocess.CompletedProcess[str]:
        self.ran.append(step.module)
        self._now += self._step_s
        output, code = self._answers.get(step.module, ("", 0))
        return subprocess.CompletedProcess([], code, stdout=output)


def test_what_fails_or_has_something_left_is_told_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failure of one measurement costs no other its rows; an unspoken end is no fault here."""
    told = "a table\n" + json.dumps({"rows": [], "left": ["D", "E"]})
    modules = Modules({"peers": (told, 0), "quality": ("", 1), "canvas": ("[]", 0)})
    monkeypatch.setattr(suite, "_run_module", modules.run)
    steps = [Step(name) for name in ("peers", "quality", "canvas")]
    assert run(steps, Budget(10, modules.now)) == (["peers: D", "peers: E"], ["quality"])
    assert modules.ran == ["peers", "quality", "canvas"]


def test_what_the_budget_does_not_suffice_for_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Steps run in their order; one without a budget of its own not where it has a row."""
    modules = Modules({})
    monkeypatch.setattr(suite, "_run_module", modules.run)
    monkeypatch.setattr(suite, "_RESULTS", tmp_path)
    append_row(tmp_path / "scaling.csv", conditions())
    append_row(tmp_path / "canvas.csv", conditions() | {"commit": "another"})
    steps = [Step("scaling", table="scaling"), Step("a"), Step("canvas", table="canvas"), Step("b")]
    assert run(steps, Budget(2, modules.now)) == (["b"], [])
    assert modules.ran == ["a", "canvas"]


def test_each_step_is_a_measurement_with_arguments_that_it_knows() -> None:
    """What is run in front of nobody must not end at a misspelt option."""
    for step in (*cpu_steps(), *cuda_steps()):
        module = importlib.import_module(
            f"benchmarks.{step.module}" + ("" if "." in step.module else ".__main__")
        )
        assert callable(module.main)
        if not step.table:
            parsed = module._arguments([*step.words, "--budget", "1.5"])
            assert parsed.budget == 1.5
            assert parsed.device == ("cuda" if step.words else "cpu")


def test_a_step_is_run_as_a_process_of_its_own() -> None:
    """It is found from any folder, and its output comes back."""
    ended = suite._run_module(Step("service.load", ("--help",), table="load"), Budget(1))
    assert ended.returncode == 0
    assert "--clients" in ended.stdout
