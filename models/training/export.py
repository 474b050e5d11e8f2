"""Stage 7: the networks written as a folder of diffusers, whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from diffusers import LatentConsistencyModelImg2ImgPipeline
from torch import nn

from models.checkpoints.catalog import BUNDLED
from models.checkpoints.manifest import record_folder
from models.training.networks.architecture import build_scheduler
from models.training.networks.tokenizer import build_tokenizer
from models.training.stages.autoencoder import build_autoencoder, load_autoencoder
from models.training.stages.student import latest_student, load_student, student_from_teacher
from models.training.stages.teacher import Teacher, load_teacher

KEPT = ("README.md", "contact-sheet.jpg", "evaluation.json")  # outlive an export
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def gather(folder: Path) -> dict[str, nn.Module]:
    """Return the networks as far as they are trained; what is not yet is at its start."""
    trained = (folder / "teacher.safetensors").exists()
    teacher = load_teacher(folder) if trained else Teacher()
    latest = latest_student(folder)
    student = load_student(latest) if latest else student_from_teacher(teacher)
    has_vae = (folder / "autoencoder.safetensors").exists()
    vae = load_autoencoder(folder) if has_vae else build_autoencoder()
    return {"unet": student, "vae": vae, "text_encoder": teacher.text}


def _set_model_index(folder: Path) -> None:
    """Name no safety checker and no feature extractor, and no machine's path."""
    path = folder / "model_index.json"
    index = json.loads(path.read_text("utf-8"))
    for name in ("safety_checker", "feature_extractor", "image_encoder"):
        index[name] = [None, None]
    index["requires_safety_checker"] = False
    index.pop("_name_or_path", None)
    path.write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def export(folder: Path, target: Path) -> None:
    """Write `target` from the states in `folder`; the old one stays until the new is whole."""
    nets = {name: net.half().eval() for name, net in gather(folder).items()}
    pipeline = LatentConsistencyModelImg2ImgPipeline(
        **nets,
        tokenizer=build_tokenizer(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    fresh = target.with_name(target.name + ".new")
    old = target.with_name(target.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    pipeline.save_pretrained(fresh, safe_serialization=True)
    _set_model_index(fresh)
    _copy_loras(folder, fresh)
    for weights in fresh.rglob("*.safetensors"):
        weights.chmod(0o644)
    for name in KEPT:
        if (target / name).exists():
            shutil.copy2(target / name, fresh / name)
    record_folder(fresh, source=BUNDLED)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _copy_loras(folder: Path, target: Path) -> None:
    """Put the adapters that are trained beside the networks, where the styles find them."""
    for path in sorted((folder / "loras").glob("*.safetensors")):
        (target / "loras").mkdir(exist_ok=True)
        shutil.copy(path, target / "loras")


def folder_megabytes(target: Path) -> float:
    """Return the size of a folder's files in MB of 10^6 bytes."""
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e6
