"""The metrics of models/pocket, each a function from an Evaluation to rows of the table."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from models.training.evaluation.classifier import HELD_OUT_SEEDS, STYLES, single_scenes
from models.training.evaluation.frechet import frechet_distances
from models.training.evaluation.inputs import (
    GUIDANCE,
    Evaluation,
    adherence,
    grey_canvas,
    held_out_scenes,
    labels_of,
    mean_saturation,
    other_colour,
    prompt_for,
    thing_mask,
)
from models.training.evaluation.report import Row, percent, percentages
from models.training.evaluation.sampling import refine
from models.training.evaluation.speed import service_latency, speed_and_precision
from models.training.scenes.renderers import ALL_STYLES, DOODLE, render
from models.training.scenes.scene import KINDS, Scene, Thing
from models.training.stages.autoencoder import psnr

SIZE = (512, 512)
SERVED_SHAPES = [(h, w) for h in (512, 640, 1024) for w in (512, 640, 1024)]
GRAINY = ("PHOTOGRAPHY", "SKETCH_BW", "SKETCH_COLOR", "ILLUSTRATION")


def _reconstruct(evaluation: Evaluation, x: Tensor) -> Tensor:
    """Return images [B, 3, H, W] in -1..1 after encoding and decoding."""
    vae = evaluation.pipeline.vae
    decoded: Tensor = vae.decode(vae.encode(x.to(vae.dtype)).latents).sample
    return decoded


def autoencoder_quality(evaluation: Evaluation) -> list[Row]:
    """Reconstruct held-out scenes of every style at 512 x 512."""
    scenes = single_scenes(HELD_OUT_SEEDS + 7, 4)
    decibels = {}
    for style in ALL_STYLES:
        x = render(scenes, style, SIZE) * 2 - 1
        decibels[style] = psnr(_reconstruct(evaluation, x).clamp(-1, 1), x)
    print(
        "autoencoder, dB:", ", ".join(f"{style} {value:.1f}" for style, value in decibels.items())
    )
    worst = min(value for style, value in decibels.items() if style not in GRAINY)
    value = f"{worst:.1f} dB ({min(decibels[style] for style in GRAINY):.1f})"
    return [Row("autoencoder, worst style (grain, hatching)", value, "30 dB (26)", "28 (24)")]


def photographs(evaluation: Evaluation) -> list[Row]:
    """Reconstruct scikit-image's photographs, where that library is installed."""
    metric = "autoencoder, photographs at 512"
    try:
        from skimage import data, transform  # noqa: PLC0415 - optional
    except ImportError:
        return [Row(metric, "not measured: scikit-image is not installed", "25 dB", "23")]
    values = []
    for load in (data.astronaut, data.coffee, data.cat):
        small = transform.resize(load()[..., :3], SIZE, anti_aliasing=True)
        x = torch.from_numpy(small).permute(2, 0, 1)[None].float() * 2 - 1
        values.append(psnr(_reconstruct(evaluation, x), x))
    return [Row(metric, " / ".join(f"{v:.1f}" for v in values) + " dB", "25 dB", "23")]


def prompt_adherence(evaluation: Evaluation) -> list[Row]:
    """Refine an empty grey canvas at strength 1, then again with another colour in the prompt."""
    scenes = held_out_scenes(3 * evaluation.count, 1000)
    swapped = [
        replace(s, things=(replace(s.things[0], colour=other_colour(s, n)),))
        for n, s in enumerate(scenes)
    ]
    canvas, shares = grey_canvas(len(scenes)), []
    for wanted in (scenes, swapped):
        prompts = [prompt_for(s) for s in wanted]
        images = refine(evaluation.pipeline, prompts, canvas, strength=1, guidance=GUIDANCE)
        shares.append(adherence(evaluation.classifier, images, wanted))
    (kind, colour), (_, swapped_colour) = shares
    return [
        Row("colour as prompted, strength 1, 4 steps", percent(colour), "97 %", "92 %"),
        Row("colour follows the swapped word, same seed", percent(swapped_colour), "97 %", "92 %"),
        Row("kind as prompted, strength 1, 4 steps", percent(kind), "92 %", "80 %"),
    ]


def _style_share(evaluation: Evaluation, images: Tensor, style: str) -> float:
    """Return the share of images that the classifier assigns to a style."""
    predicted = evaluation.classifier(images).style.argmax(1)
    return float((predicted == STYLES.index(style)).float().mean())


def doodles(evaluation: Evaluation) -> list[Row]:
    """Refine doodles at strength 0.6: kind and colour stay, in the style of the prompt."""
    shares, saturation, kinds, colours = {}, 0.0, [], []
    count = max(2, evaluation.count // 4)
    for index, style in enumerate(STYLES):
        scenes = held_out_scenes(count, 2000 + index * count)
        prompts = [prompt_for(s, style) for s in scenes]
        inputs = render(scenes, DOODLE, SIZE)
        images = refine(evaluation.pipeline, prompts, inputs, strength=0.6, guidance=GUIDANCE)
        shares[style] = _style_share(evaluation, images, style)
        kind, colour = adherence(evaluation.classifier, images, scenes)
        kinds.append(kind)
        if style == "SKETCH_BW":
            saturation = mean_saturation(images)
        else:
            colours.append(colour)
    print("by style:", percentages(shares))
    style_share = sum(shares.values()) / len(shares)
    return [
        Row("style as prompted, doodle at strength 0.6", percent(style_share), "92 %", "85 %"),
        Row("kind kept there", percent(sum(kinds) / len(kinds)), "-", "-"),
        Row("colour kept there", percent(sum(colours) / len(colours)), "-", "-"),
        Row("SKETCH_BW mean saturation", f"{saturation:.3f}", "under 0.05", "same"),
    ]


def adapters(evaluation: Evaluation) -> list[Row]:
    """Compare doodles refined with a style's LoRA and without it."""
    rows = []
    for path in sorted((evaluation.folder / "loras").glob("*.safetensors")):
        pipeline, style = evaluation.pipeline, path.stem
        scenes = held_out_scenes(max(4, evaluation.count // 2), 3000)
        prompts = [prompt_for(s, style) for s in scenes]
        inputs = render(scenes, DOODLE, SIZE)
        off = refine(pipeline, prompts, inputs, strength=0.6, guidance=GUIDANCE)
        pipeline.load_lora_weights(path)
        on = refine(pipeline, prompts, inputs, strength=0.6, guidance=GUIDANCE)
        pipeline.unload_lora_weights()
        levels = 255 * (on - off).abs().mean().item()
        with_lora, without = (percent(_style_share(evaluation, x, style)) for x in (on, off))
        value = f"{levels:.1f} levels, classified so {with_lora}, without {without}"
        if style == "SKETCH_BW":
            value += f", saturation {mean_saturation(on):.3f}, without {mean_saturation(off):.3f}"
        rows.append(Row(f"LoRA {style}", value, "over 10 levels, classified so", "same"))
    return rows


def preservation(evaluation: Evaluation) -> list[Row]:
    """Refine doodles on plain grounds at strength 0.5: the thing stays in its place."""
    scenes = [
        replace(
            s,
            place="plain",
            ground="white",
            things=(Thing(t.kind, ("red", "blue", "green", "purple")[n % 4], t.x, t.y, 0.3),),
        )
        for n, s in enumerate(held_out_scenes(evaluation.count, 4000))
        for t in s.things
    ]
    inputs = render(scenes, DOODLE, SIZE)
    prompts = [prompt_for(s) for s in scenes]
    images = refine(evaluation.pipeline, prompts, inputs, strength=0.5, guidance=GUIDANCE)
    ious = []
    for before, after in zip(inputs, images, strict=True):
        a, b = thing_mask(before), thing_mask(after)
        ious.append(((a & b).sum() / (a | b).sum().clamp_min(1)).item())
    distances = []
    for strength in (0.2, 0.4, 0.6, 0.8):
        images = refine(evaluation.pipeline, prompts, inputs, strength=strength, guidance=GUIDANCE)
        distances.append((images - inputs).square().mean().sqrt().item())
    rises = all(a < b for a, b in itertools.pairwise(distances))
    value = ", ".join(f"{d:.3f}" for d in distances) + ("" if rises else " (does not rise)")
    return [
        Row("thing stays, strength 0.5 (IoU)", f"{sum(ious) / len(ious):.2f}", "0.6", "same"),
        Row("distance at strength 0.2, 0.4, 0.6, 0.8", value, "rising", "same"),
    ]


def guidance(evaluation: Evaluation) -> list[Row]:
    """Compare the probabilities of kind and colour at guidance 1 and 8.

    On an empty canvas there is only the prompt to follow. On the doodle of another thing, in
    another colour, prompt and image contradict each other.
    """
    scenes = held_out_scenes(2 * evaluation.count, 5000)
    others = []
    for number, scene in enumerate(scenes):
        thing = scene.things[0]
        kind = KINDS[(KINDS.index(thing.kind) + len(KINDS) // 2) % len(KINDS)]
        other = replace(thing, kind=kind, colour=other_colour(scene, number))
        others.append(replace(scene, things=(other,)))
    values = []
    for name, canvas, strength in (
        ("empty canvas", grey_canvas(len(scenes)), 1.0),
        ("another thing's doodle at 0.8", render(others, DOODLE, SIZE), 0.8),
    ):
        low, high = (_confidence(evaluation, scenes, canvas, strength, scale) for scale in (1, 8))
        values.append(f"{name} {high:.3f} against {low:.3f}")
    return [Row("adherence at guidance 8 against 1", "; ".join(values), "higher", "same")]


def _confidence(
    evaluation: Evaluation, scenes: list[Scene], canvas: Tensor, strength: float, scale: float
) -> float:
    """Return the classifier's mean probability of the prompts' kinds and colours."""
    kinds, colours = labels_of(scenes)
    prompts = [prompt_for(s) for s in scenes]
    images = refine(evaluation.pipeline, prompts, canvas, strength=strength, guidance=scale)
    predicted = evaluation.classifier(images)
    kind = predicted.kind.softmax(1).gather(1, kinds[:, None]).mean()
    colour = predicted.colour.softmax(1).gather(1, colours[:, None]).mean()
    return float((kind + colour) / 2)


def served_shapes(evaluation: Evaluation) -> list[Row]:
    """Refine doodles at strength 0.8 in the nine served shapes; compare with true renders."""
    scenes = held_out_scenes(max(len(KINDS), evaluation.count // 2), 7000)
    prompts, values = [prompt_for(s) for s in scenes], []
    for shape in SERVED_SHAPES:
        inputs = render(scenes, DOODLE, shape)
        images = refine(evaluation.pipeline, prompts, inputs, strength=0.8, guidance=GUIDANCE)
        kind, colour = adherence(evaluation.classifier, images, scenes)
        true, _ = adherence(evaluation.classifier, render(scenes, "NONE", shape), scenes)
        shares = f"{percent(kind)} ({percent(true)}), {percent(colour)}"
        values.append(f"{shape[0]} x {shape[1]}: {shares}")
    metric = "kind (of true renders), colour in the served shapes, doodle at 0.8"
    return [Row(metric, "; ".join(values), "-", "reported")]


METRICS: tuple[Callable[[Evaluation], list[Row]], ...] = (
    autoencoder_quality, photographs, prompt_adherence, doodles, adapters, preservation, guidance,
    frechet_distances, served_shapes, speed_and_precision, service_latency,
)  # fmt: skip
