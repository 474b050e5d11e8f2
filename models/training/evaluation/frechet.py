"""Frechet distances of student and teacher to true renders, on the classifier's features."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from models.training.evaluation.classifier import HELD_OUT_SEEDS, STYLES, Classifier, single_scenes
from models.training.evaluation.inputs import GUIDANCE, Evaluation, grey_canvas, redraw
from models.training.evaluation.report import Row
from models.training.evaluation.sampling import refine, sample_teacher
from models.training.scenes.captions import caption
from models.training.scenes.renderers import render
from models.training.scenes.scene import Scene
from models.training.stages.distillation import classifier_free_guidance, rescaled_guidance
from models.training.stages.teacher import has_trained_teacher, load_teacher

SIZE = (512, 512)  # a served size: at others the distance shows how both networks fail
_SAMPLERS = (
    ("teacher 4", 4, rescaled_guidance),
    ("teacher 4 under plain guidance", 4, classifier_free_guidance),
    ("teacher 50", 50, rescaled_guidance),
    ("teacher 50 under plain guidance", 50, classifier_free_guidance),
)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the Frechet distance of two sets of features [N, F] (Heusel et al. 2017)."""
    mean = (a.mean(0) - b.mean(0)).square().sum()
    cov_a, cov_b = torch.cov(a.T).double(), torch.cov(b.T).double()
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return float(mean + torch.trace(cov_a) + torch.trace(cov_b) - 2 * cross)


def frechet_distances(evaluation: Evaluation) -> list[Row]:
    """Compare the student, and a teacher that was trained here, with true renders.

    The scenes are posed, because only posed ones were learned from an empty canvas. True renders
    for the same prompts, drawn again, show the distance to expect of a perfect model.
    """
    count = len(STYLES) * max(6, evaluation.count)
    styles = [STYLES[n % len(STYLES)] for n in range(count)]
    scenes = single_scenes(HELD_OUT_SEEDS + 6000, count, posed=True)
    redrawn = [redraw(s, HELD_OUT_SEEDS + 600_000 + 100 * n) for n, s in enumerate(scenes)]
    prompts = [caption(s, y) for s, y in zip(scenes, styles, strict=True)]
    canvas = grey_canvas(1, SIZE).expand(count, -1, -1, -1)
    classifier = evaluation.classifier
    images = refine(evaluation.pipeline, prompts, canvas, strength=1, guidance=GUIDANCE)
    features = {
        "student 4": classifier(images).features,
        "true renders drawn again": _render_features(classifier, redrawn, styles),
    }
    if has_trained_teacher(evaluation.work):
        teacher, vae = load_teacher(evaluation.work), evaluation.pipeline.vae
        for name, steps, guide in _SAMPLERS:
            images = sample_teacher(
                teacher, vae, prompts, SIZE, steps=steps, guidance=GUIDANCE, guide=guide
            )
            features[name] = classifier(images).features
    true = _render_features(classifier, scenes, styles)
    value = ", ".join(f"{name} {frechet_distance(f, true):.1f}" for name, f in features.items())
    if "teacher 4" not in features:
        value += "; no teacher was trained here"
    target = "student < 1.5 x teacher 50, < half of teacher 4"
    return [Row("Frechet distance", f"{value} ({count} images each)", target, "same")]


def _render_features(classifier: Classifier, scenes: list[Scene], styles: list[str]) -> Tensor:
    """Return the features [B, F] of true renders, one scene and style each."""
    pairs = tqdm(list(zip(scenes, styles, strict=True)), desc="true renders", leave=False)
    return torch.cat([classifier(render([s], style, SIZE)).features for s, style in pairs])
