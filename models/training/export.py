"""Stage 11: the networks written as a folder of diffusers, all or nothing."""

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
from models.training.stages.teacher import Teacher, load_teacher, teacher_path

KEPT = ("README.md", "contact-sheet.jpg", "evaluation.json")  # from the earlier folder


def load_networks(folder: Path) -> dict[str, nn.Module]:
    """Return the networks as far as they are trained, and untrained ones for the others."""
    teacher = load_teacher(folder) if teacher_path(folder).exists() else Teacher()
    latest = latest_student(folder)
    student = load_student(latest) if latest else student_from_teacher(teacher)
    has_vae = (folder / "autoencoder.safetensors").exists()
    vae = load_autoencoder(folder) if has_vae else build_autoencoder()
    return {"unet": student, "vae": vae, "text_encoder": teacher.text}


def export(folder: Path, target: Path) -> None:
    """Write `target` from the states in `folder`; replace it when the new folder is complete."""
    pipeline = LatentConsistencyModelImg2ImgPipeline(
        **{name: net.half().eval() for name, net in load_networks(folder).items()},
        tokenizer=build_tokenizer(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    new = target.with_name(target.name + ".new")
    old = target.with_name(target.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    pipeline.save_pretrained(new, safe_serialization=True)
    index = json.loads((new / "model_index.json").read_text("utf-8"))
    for name in ("safety_checker", "feature_extractor", "image_encoder"):
        index[name] = [None, None]
    index["requires_safety_checker"] = False
    index.pop("_name_or_path", None)  # a local path
    (new / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    for lora in sorted((folder / "loras").glob("*.safetensors")):
        (new / "loras").mkdir(exist_ok=True)
        shutil.copy(lora, new / "loras")
    for weights in new.rglob("*.safetensors"):
        weights.chmod(0o644)
    for name in KEPT:
        if (target / name).exists():
            shutil.copy2(target / name, new / name)
    record_folder(new, source=BUNDLED)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def folder_megabytes(target: Path) -> float:
    """Return the size of a folder's files in MB of 10^6 bytes."""
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e6
