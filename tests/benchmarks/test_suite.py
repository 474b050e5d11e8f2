"""All measurements in a row: what is left, what failed, and that each command accepts its words."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Sequence

from benchmarks.core.budget import Budget
from benchmarks.suite import Step, cpu_steps, cuda_steps, run, run_command


class Commands:
    """Commands that take a second each on a hand-driven clock and print some output."""

    def __init__(self, answers: dict[str, tuple[str, int]]) -> None:
        self.ran: list[str] = []
        self._answers = answers
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def __call__(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        module = words[0].removeprefix("benchmarks.")
        self.ran.append(module)
        self._now += 1
        output, code = self._answers.get(module, ("", 0))
        return subprocess.CompletedProcess([], code, stdout=output)


def test_failures_and_leftovers() -> None:
    """A failed command costs no other its rows; without a last line of JSON nothing is left."""
    summary = "a table\n" + json.dumps({"rows": [], "left": ["D", "E"]})
    commands = Commands({"peers": (summary, 0), "quality": ("", 1), "canvas": ("[]", 0)})
    steps = [Step(name) for name in ("peers", "quality", "canvas")]
    assert run(steps, Budget(10, commands.now), commands) == (["peers: D", "peers: E"], ["quality"])
    assert commands.ran == ["peers", "quality", "canvas"]


def test_budget_ends_the_suite() -> None:
    """Steps run in order until the budget is spent."""
    commands = Commands({})
    steps = [Step(name) for name in "abc"]
    assert run(steps, Budget(2, commands.now), commands) == (["c"], [])
    assert commands.ran == ["a", "b"]


def test_each_step_parses() -> None:
    """Each step is a command that knows the arguments it is given."""
    for step in (*cpu_steps(), *cuda_steps()):
        suffix = "" if "." in step.module else ".__main__"
        module = importlib.import_module(f"benchmarks.{step.module}{suffix}")
        assert callable(module.main)
        parsed = module.parse([*step.words, "--budget", "1.5"])
        assert parsed.budget == 1.5
        assert getattr(parsed, "device", "cpu") == ("cuda" if step.words else "cpu")


def test_run_command() -> None:
    """A command runs in its own process, and its output is returned."""
    ended = run_command(["benchmarks.service.load", "--help"])
    assert ended.returncode == 0
    assert "--clients" in ended.stdout
