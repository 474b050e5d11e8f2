"""The table of figures in the model card."""

from __future__ import annotations

import json
from pathlib import Path

from models.training.evaluation.report import Row, merge_rows, table, write_figures
from models.training.train import POCKET


def test_merge() -> None:
    """Measured rows replace earlier ones in their places, and new rows come last."""
    earlier = [Row("size", "1 MB", "-", "-"), Row("speed", "2 s", "-", "-")]
    measured = [Row("colour", "3 %", "-", "-"), Row("size", "4 MB", "-", "-")]
    assert merge_rows(earlier, measured) == [measured[1], earlier[1], measured[0]]


def test_write_figures(tmp_path: Path) -> None:
    """A second evaluation replaces the table and leaves the other text."""
    card = tmp_path / "README.md"
    card.write_text("above\n<!-- figures -->\n<!-- /figures -->\nbelow\n")
    for value in ("1 dB", "2 dB"):
        write_figures(card, [Row("quality", value, "3 dB", "2 dB")])
    text = card.read_text()
    assert "| quality | 2 dB |" in text
    assert "1 dB" not in text
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert table([]) in text


def test_card_shows_the_evaluation() -> None:
    """The card's table is that of evaluation.json."""
    rows = [Row(**row) for row in json.loads((POCKET / "evaluation.json").read_text("utf-8"))]
    assert table(rows) in (POCKET / "README.md").read_text("utf-8")
