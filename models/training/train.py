"""The command that trains models/pocket: `python -m models.training.train --stage all`.

Every stage resumes from its state in the work folder, at first from the shipped networks, and ends
after its minutes: the best networks so far can be exported at any time. The same command runs on
the CPU and on CUDA.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from models.malloc import disable_mmap
from models.training.export import export, folder_megabytes
from models.training.loop.data_parallel import DataParallel, launch
from models.training.loop.fit import Budget, TrainingRun, fit
from models.training.recipe import parse_mixture, recipe
from models.training.stages.adversarial import ADVERSARIAL, AdversarialRun
from models.training.stages.autoencoder import AutoencoderRun, load_autoencoder
from models.training.stages.latent_dataset import LatentMixture, build_latent_dataset
from models.training.stages.lora import train_loras
from models.training.stages.student import DISTILLATION_STAGES, ROLLOUT, StudentRun
from models.training.stages.teacher import TeacherRun, has_trained_teacher
from models.training.stages.text_encoder import train_text_encoder
from models.training.stages.warm_start import warm_start, warm_start_student

POCKET = Path(__file__).parents[1] / "pocket"
PARALLEL_STAGES: dict[str, Callable[..., TrainingRun]] = {
    "teacher": TeacherRun,
    **{stage: partial(StudentRun, stage=stage) for stage in DISTILLATION_STAGES},
    ADVERSARIAL: AdversarialRun,
}
STAGES = (
    "autoencoder", "latent-dataset", "text-encoder", *PARALLEL_STAGES, "lora", "export",
)  # fmt: skip
STUDENT_STAGES = (ROLLOUT, ADVERSARIAL, "lora", "export")  # they can start from the shipped student


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the bundled checkpoint")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--work", type=Path, default=Path(".training"), help="folder of the states")
    parser.add_argument("--pocket", type=Path, default=POCKET, help="folder to export to")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument(
        "--processes", type=int, default=0, help="of one thread each; 0: one per core, up to 4"
    )
    parser.add_argument(
        "--batch", type=int, default=0, help="rows of 16 x 16 latents; 0: by the device"
    )
    parser.add_argument("--decoder-only", action="store_true", help="freeze the encoder")
    parser.add_argument(
        "--from-scratch", action="store_true", help="do not start from the shipped networks"
    )
    parser.add_argument("--rate", type=float, default=0.0, help="0: the stage's default")
    parser.add_argument(
        "--decay", type=float, default=0.3, help="share of the minutes in which the rate falls"
    )
    parser.add_argument(
        "--mixture",
        default="",
        help="comma-separated shape:chunks:scenes:weight; the stage's in the recipe by default",
    )
    return parser.parse_args()


def _run_parallel_stage(
    group: DataParallel, stage: str, minutes: float, mixture: str, args: argparse.Namespace
) -> None:
    """Run one process's part of the teacher's or the student's training."""
    device = torch.device(args.device)
    batch_size = args.batch or (384 if device.type == "cpu" else 2048)
    latents = LatentMixture(args.work, parse_mixture(mixture), device, batch_size)
    rate = {"rate": args.rate} if args.rate else {}
    run = PARALLEL_STAGES[stage](args.work, latents, device, group=group, **rate)
    fit(run, Budget(minutes, decay=args.decay), save_every=200, group=group)


def run_stage(stage: str, minutes: float, mixture: str, args: argparse.Namespace) -> None:
    """Run one stage for so many minutes, from its state on."""
    device = torch.device(args.device)
    rate = {"rate": args.rate} if args.rate else {}
    if stage in STUDENT_STAGES:
        warm_start_student(args.pocket, args.work)
    if stage == "autoencoder":
        run = AutoencoderRun(args.work, device, decoder_only=args.decoder_only, **rate)
        fit(run, Budget(minutes), save_every=200)
    elif stage == "latent-dataset":
        model, budget = load_autoencoder(args.work), Budget(minutes)
        for subset in parse_mixture(mixture):
            build_latent_dataset(args.work, model, subset, device, budget)
    elif stage == "text-encoder":
        train_text_encoder(args.work, device=device, minutes=minutes, **rate)
    elif stage == "lora":
        train_loras(args.work, device=device, minutes=minutes, **rate)
    elif stage == "export":
        export(args.work, args.pocket)
        print(f"{args.pocket.name}: {folder_megabytes(args.pocket):.1f} MB")
    else:
        size = args.processes or (1 if device.type != "cpu" else min(4, os.cpu_count() or 1))
        launch(size, _run_parallel_stage, stage, minutes, mixture, args)


def main() -> None:
    args = _parse_arguments()
    disable_mmap()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device != "cpu":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    if not args.from_scratch:
        warm_start(args.pocket, args.work)
    steps = recipe(large=args.device != "cpu")
    if args.stage != "all":
        mixture = next(step.mixture for step in reversed(steps) if step.stage == args.stage)
        run_stage(args.stage, args.minutes, args.mixture or mixture, args)
        return
    for step in steps:
        if step.stage == "text-encoder" and has_trained_teacher(args.work):
            continue  # the UNet depends on the encoder's states
        run_stage(step.stage, args.minutes * step.share, step.mixture, args)


if __name__ == "__main__":
    main()
