"""`python -m models.training.evaluate`: the figures of models/pocket and its contact sheet.

It runs the shipped folder in bare diffusers, and once through the service. The judges learn from
true renders alone, in a few minutes, the first time; their state is kept in the work folder.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from models.malloc import hold_memory
from models.runtime.device import has_bf16_products, pick_dtype
from models.training.evaluation.classifier import WIDE, load_judge, own_accuracy, train_judge
from models.training.evaluation.contact_sheet import contact_sheet
from models.training.evaluation.latency import Bench, Row, percent
from models.training.evaluation.metrics import MEASURES
from models.training.evaluation.sampling import load_pipeline
from models.training.export import folder_megabytes
from models.training.train import POCKET

LEAST_RIGHT = 0.98  # of true renders that a judge has not learned from
MARKS = ("<!-- figures -->", "<!-- /figures -->")


def table(rows: list[Row]) -> str:
    """Return rows as a table in Markdown."""
    lines = ["| measure | reached | target | CPU only |", "| --- | --- | --- | --- |"]
    lines += [f"| {r.measure} | {r.value} | {r.target} | {r.least} |" for r in rows]
    return "\n".join(lines)


def write_figures(card: Path, rows: list[Row]) -> None:
    """Put the table between the marks of the card, in the place of the last one."""
    text = card.read_text("utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    card.write_text(f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}", "utf-8")


def updated(before: list[Row], fresh: list[Row]) -> list[Row]:
    """Return the rows of an earlier evaluation with fresh ones in their places, or at the end."""
    by_name = {row.measure: row for row in fresh}
    kept = [by_name.pop(row.measure, row) for row in before]
    return [*kept, *by_name.values()]


def measure(bench: Bench, names: list[str]) -> list[Row]:
    """Run the measures named (all, if none is named) and print each row as it comes."""
    rows: list[Row] = []
    told = ", ".join(f"{name} {percent(share)}" for name, share in bench.own.items())
    rows.append(Row("the judge itself, held-out true renders", told, "98 %", "98 %"))
    wide = ", ".join(f"{name} {percent(share)}" for name, share in bench.own_wide.items())
    rows.append(Row("the judge itself, shapes that are no squares", wide, "98 %", "98 %"))
    for run in MEASURES:
        if not names or run.__name__ in names:
            with torch.no_grad():
                fresh = run(bench)
            rows += fresh
            print(table(fresh).split("\n", 2)[2], flush=True)
    rows.append(Row("size", f"{folder_megabytes(bench.folder):.1f} MB", "25 MB", "same"))
    return rows


def check_judge(bench: Bench) -> None:
    """Raise SystemExit for a judge that knows too little for its word to be written down."""
    least = min(*bench.own.values(), *bench.own_wide.values())
    if round(least, 2) < LEAST_RIGHT:
        raise SystemExit(
            f"the judge is right about true renders in {percent(least)} of the cases, and should "
            f"be in {percent(LEAST_RIGHT)}: remove {bench.work / 'judge.safetensors'} and let "
            "another one learn for longer (--judge-minutes)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure models/pocket")
    parser.add_argument("--pocket", type=Path, default=POCKET)
    parser.add_argument("--work", type=Path, default=Path(".training"))
    parser.add_argument("--count", type=int, default=32, help="scales the numbers of pictures")
    parser.add_argument("--judge-minutes", type=float, default=8.0 if has_bf16_products() else 16.0)
    parser.add_argument(
        "--only", nargs="*", default=[], help="names of measures; the others' figures stay"
    )
    parser.add_argument("--sheet-only", action="store_true")
    args = parser.parse_args()
    hold_memory()
    cpu = torch.device("cpu")
    pipeline = load_pipeline(args.pocket, cpu, pick_dtype("auto", "cpu"))
    if not args.only:
        contact_sheet(pipeline, args.pocket / "contact-sheet.jpg")
    if args.sheet_only:
        return
    if not (args.work / "judge.safetensors").exists():
        train_judge(args.work, device=cpu, minutes=args.judge_minutes)
    judge = load_judge(args.work)
    bench = Bench(
        args.pocket,
        args.work,
        pipeline,
        judge,
        args.count,
        own=own_accuracy(judge),
        own_wide=own_accuracy(judge, shapes=WIDE),
    )
    check_judge(bench)
    rows = measure(bench, args.only)
    report = args.pocket / "evaluation.json"
    if args.only and report.exists():
        rows = updated([Row(**row) for row in json.loads(report.read_text("utf-8"))], rows)
    print("\n" + table(rows))
    report.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")
    if (args.pocket / "README.md").exists():
        write_figures(args.pocket / "README.md", rows)


if __name__ == "__main__":
    main()
