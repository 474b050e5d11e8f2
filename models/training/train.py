"""The command that makes models/pocket: `python -m models.training.train --stage all`.

Every stage resumes from its state in the work folder, the first time from the networks that are
shipped, and stops after its minutes, so that the best so far can be exported at any moment; the
same command runs on the CPU and on CUDA.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from models.malloc import hold_memory
from models.training.export import export, folder_megabytes
from models.training.loop.checkpoint import Budget
from models.training.loop.data_parallel import Team, run_together
from models.training.loop.fit import Run, fit
from models.training.recipe import parse_diet, recipe
from models.training.stages.adversarial import ADVERSARIAL, AdversarialRun
from models.training.stages.autoencoder import load_autoencoder, train_autoencoder
from models.training.stages.latent_dataset import Bank, fill_bank
from models.training.stages.lora import train_loras
from models.training.stages.student import ENDED, GUIDED, REHEARSED, STUDENT, StudentRun
from models.training.stages.teacher import Mixture, TeacherRun, is_taught
from models.training.stages.text_encoder import train_reading
from models.training.stages.warm_start import inherit, inherit_student

STAGES = (
    "autoencoder", "bank", "reading", "teacher", GUIDED, ENDED, STUDENT, REHEARSED,
    ADVERSARIAL, "lora", "export",
)  # fmt: skip
POCKET = Path(__file__).parents[1] / "pocket"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--work", type=Path, default=Path(".training"))
    parser.add_argument("--pocket", type=Path, default=POCKET)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves it to torch")
    parser.add_argument(
        "--processes", type=int, default=0, help="of a thread each; 0 is a core's each, up to 4"
    )
    parser.add_argument(
        "--batch", type=int, default=0, help="at 16 x 16 latents; 0 asks the device"
    )
    parser.add_argument("--decoder-only", action="store_true", help="keep the encoder as it is")
    parser.add_argument(
        "--anew", action="store_true", help="begin from nothing, not from the folder's networks"
    )
    parser.add_argument("--rate", type=float, default=0.0, help="0 takes the stage's own")
    parser.add_argument("--decay", type=float, default=0.3, help="share of the budget to slow down")
    parser.add_argument(
        "--diet",
        default="",
        help="shape:chunks:scenes:weight, by commas; the recipe's for that stage, if left out",
    )
    return parser


def _mixture(work: Path, diet: str, batch: int, device: torch.device) -> Mixture:
    """Return the banks of a diet, as far as they are filled."""
    pairs = [
        (Bank(work, item.shape, device, for_trunk=item.for_trunk), item.weight)
        for item in parse_diet(diet)
    ]
    filled = [(bank, weight) for bank, weight in pairs if len(bank)]
    if not filled:
        raise SystemExit(f"no bank of {diet} is filled: run --stage bank first")
    base = batch or (384 if device.type == "cpu" else 2048)
    return Mixture([bank for bank, _ in filled], [weight for _, weight in filled], base)


_LARGE_STAGES: dict[str, Callable[..., Run]] = {
    "teacher": TeacherRun,
    **{stage: partial(StudentRun, stage=stage) for stage in (GUIDED, ENDED, STUDENT, REHEARSED)},
    ADVERSARIAL: AdversarialRun,
}


def _run_large_stage(
    team: Team, stage: str, minutes: float, diet: str, args: argparse.Namespace
) -> None:
    """Run a member's part of the teacher's or the student's training."""
    device = torch.device(args.device)
    mixture = _mixture(args.work, diet, args.batch, device)
    rate = {"rate": args.rate} if args.rate else {}
    run = _LARGE_STAGES[stage](args.work, mixture, device, team=team, **rate)
    budget = Budget(minutes, warmup_steps=100, decay=args.decay)
    fit(run, budget, save_every=200, team=team)


def run_stage(stage: str, minutes: float, diet: str, args: argparse.Namespace) -> None:
    """Run one stage for so many minutes, from its state on."""
    device = torch.device(args.device)
    rate = {"rate": args.rate} if args.rate else {}
    if stage == "autoencoder":
        train_autoencoder(
            args.work,
            device=device,
            minutes=minutes,
            batch=12 if device.type == "cpu" else 256,
            decoder_only=args.decoder_only,
            **rate,
        )
    elif stage == "bank":
        model, budget = load_autoencoder(args.work), Budget(minutes)
        for item in parse_diet(diet):
            chunks = range(item.chunks)
            fill_bank(
                args.work,
                model,
                item.shape,
                chunks,
                scenes=item.scenes,
                device=device,
                until=budget,
            )
    elif stage == "reading":
        train_reading(args.work, device=device, minutes=minutes, **rate)
    elif stage == "lora":
        inherit_student(args.pocket, args.work)
        train_loras(args.work, device=device, minutes=minutes, **rate)
    elif stage == "export":
        inherit_student(args.pocket, args.work)
        export(args.work, args.pocket)
        print(f"{args.pocket.name}: {folder_megabytes(args.pocket):.1f} MB")
    else:
        if stage in (REHEARSED, ADVERSARIAL):
            inherit_student(args.pocket, args.work)
        size = args.processes or (1 if device.type != "cpu" else min(4, os.cpu_count() or 1))
        run_together(size, _run_large_stage, stage, minutes, diet, args)


def main() -> None:
    args = _parser().parse_args()
    hold_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device != "cpu":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    if not args.anew:
        inherit(args.pocket, args.work)
    plan = recipe(large=args.device != "cpu")
    if args.stage != "all":
        diet = next(step.diet for step in reversed(plan) if step.stage == args.stage)
        run_stage(args.stage, args.minutes, args.diet or diet, args)
        return
    for step in plan:
        if step.stage == "reading" and is_taught(args.work):
            continue  # the UNet has learned what the encoder's states mean: leave them as they are
        run_stage(step.stage, args.minutes * step.share, step.diet, args)


if __name__ == "__main__":
    main()
