"""`python -m models.training.evaluate`: the figures of models/pocket and its contact sheet.

The shipped folder runs in bare diffusers. The classifier learns from true renders in a few minutes,
the first time; its state stays in the work folder. The row through the service needs `--url` of
`instant-refine serve --model models/pocket --device cpu`, and keeps its earlier figure without.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from models.malloc import disable_mmap
from models.runtime.device import has_bf16_products, pick_dtype
from models.training.evaluation.classifier import (
    WIDE,
    classifier_path,
    held_out_accuracy,
    load_classifier,
    train_classifier,
)
from models.training.evaluation.contact_sheet import write_contact_sheet
from models.training.evaluation.inputs import Evaluation
from models.training.evaluation.metrics import METRICS
from models.training.evaluation.report import (
    Row,
    merge_rows,
    percent,
    percentages,
    table,
    write_figures,
)
from models.training.evaluation.sampling import load_pipeline
from models.training.export import folder_megabytes
from models.training.train import POCKET

MIN_ACCURACY = 0.98  # of the classifier, on held-out true renders


def measure(evaluation: Evaluation, names: list[str]) -> list[Row]:
    """Run the named metrics (all, without names) and print each row when it is measured."""
    square, wide = percentages(evaluation.accuracy), percentages(evaluation.wide_accuracy)
    rows = [
        Row("classifier, held-out true renders", square, "98 %", "98 %"),
        Row("classifier, shapes that are not square", wide, "98 %", "98 %"),
    ]
    for metric in METRICS:
        if not names or metric.__name__ in names:
            with torch.no_grad():
                measured = metric(evaluation)
            rows += measured
            print("\n".join(table(measured).splitlines()[2:]), flush=True)
    rows.append(Row("size", f"{folder_megabytes(evaluation.folder):.1f} MB", "25 MB", "same"))
    return rows


def check_classifier(evaluation: Evaluation) -> None:
    """Raise SystemExit for a classifier below MIN_ACCURACY in any attribute or shape."""
    least = min(*evaluation.accuracy.values(), *evaluation.wide_accuracy.values())
    if round(least, 2) < MIN_ACCURACY:
        raise SystemExit(
            f"the classifier's accuracy on true renders is {percent(least)}, and must be at least "
            f"{percent(MIN_ACCURACY)}: delete {classifier_path(evaluation.work)} and train another "
            "one for longer (--classifier-minutes)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure models/pocket")
    parser.add_argument("--pocket", type=Path, default=POCKET)
    parser.add_argument("--work", type=Path, default=Path(".training"))
    parser.add_argument("--count", type=int, default=32, help="scales the numbers of images")
    minutes = 8.0 if has_bf16_products() else 16.0
    parser.add_argument("--classifier-minutes", type=float, default=minutes)
    parser.add_argument("--url", default="", help="a service on this folder, for its latency")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=[metric.__name__ for metric in METRICS],
        default=[],
        metavar="METRIC",
        help="measure these: %(choices)s",
    )
    parser.add_argument("--sheet-only", action="store_true", help="write the contact sheet alone")
    args = parser.parse_args()
    disable_mmap()
    cpu = torch.device("cpu")
    pipeline = load_pipeline(args.pocket, cpu, pick_dtype("auto", "cpu"))
    if not args.only:
        write_contact_sheet(pipeline, args.pocket / "contact-sheet.jpg")
    if args.sheet_only:
        return
    if not classifier_path(args.work).exists():
        train_classifier(args.work, device=cpu, minutes=args.classifier_minutes)
    classifier = load_classifier(args.work)
    evaluation = Evaluation(
        args.pocket,
        args.work,
        pipeline,
        classifier,
        args.count,
        url=args.url,
        accuracy=held_out_accuracy(classifier),
        wide_accuracy=held_out_accuracy(classifier, shapes=WIDE),
    )
    check_classifier(evaluation)
    rows = measure(evaluation, args.only)
    report = args.pocket / "evaluation.json"
    if report.exists():
        rows = merge_rows([Row(**row) for row in json.loads(report.read_text("utf-8"))], rows)
    print("\n" + table(rows))
    report.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")
    if (args.pocket / "README.md").exists():
        write_figures(args.pocket / "README.md", rows)


if __name__ == "__main__":
    main()
