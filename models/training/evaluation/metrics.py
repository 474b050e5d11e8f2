"""The measures of models/pocket, each a function from a Bench to rows of the table."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor
from torch.backends.cpu import get_cpu_capability
from tqdm import tqdm

from models.runtime.device import has_bf16_products, pick_dtype
from models.training.evaluation.classifier import HELD_OUT_SEEDS, STYLES, frechet, single_scenes
from models.training.evaluation.latency import (
    GUIDANCE,
    Bench,
    Row,
    asked_scenes,
    drawn_again,
    grey_canvas,
    mask_of,
    percent,
    prompt_for,
    right,
    saturation_of,
    truth,
)
from models.training.evaluation.sampling import load_pipeline, refine, sample_teacher
from models.training.evaluation.served import median_seconds
from models.training.scenes.captions import caption
from models.training.scenes.palette import COLOUR_NAMES
from models.training.scenes.renderers import DOODLE, PAINTERS, render
from models.training.scenes.scene import KINDS, Scene, Thing
from models.training.stages.autoencoder import psnr
from models.training.stages.distillation import guided, guided_denoised
from models.training.stages.teacher import is_taught, load_teacher

SHAPES = [(h, w) for h in (512, 640, 1024) for w in (512, 640, 1024)]
GRAINY = ("PHOTOGRAPHY", "SKETCH_BW", "SKETCH_COLOR", "ILLUSTRATION")


def autoencoder_quality(bench: Bench) -> list[Row]:
    """Reconstruct held-out scenes of every style at 512 x 512."""
    vae, worst, worst_grainy, names = bench.pipeline.vae, 99.0, 99.0, []
    for style in (*PAINTERS, DOODLE):
        x = render(single_scenes(HELD_OUT_SEEDS + 7, 4), style, (512, 512)) * 2 - 1
        with torch.no_grad():
            decibels = psnr(vae.decode(vae.encode(x.to(vae.dtype)).latents).sample.clamp(-1, 1), x)
        names.append(f"{style} {decibels:.1f}")
        if style in GRAINY:
            worst_grainy = min(worst_grainy, decibels)
        else:
            worst = min(worst, decibels)
    print("autoencoder by style, dB:", ", ".join(names))
    value = f"{worst:.1f} dB ({worst_grainy:.1f})"
    return [Row("autoencoder, worst style (grain, hatching)", value, "30 dB (26)", "28 (24)")]


def photographs(bench: Bench) -> list[Row]:
    """Reconstruct scikit-image's photographs, where that library is installed."""
    name = "autoencoder, photographs at 512"
    try:
        from skimage import data, transform  # noqa: PLC0415 - optional
    except ImportError:
        return [Row(name, "not measured: scikit-image is not installed", "25 dB", "23")]
    values = []
    for read in (data.astronaut, data.coffee, data.cat):
        small = transform.resize(read()[..., :3], (512, 512), anti_aliasing=True)
        x = torch.from_numpy(small).permute(2, 0, 1)[None].float() * 2 - 1
        vae = bench.pipeline.vae
        with torch.no_grad():
            values.append(psnr(vae.decode(vae.encode(x.to(vae.dtype)).latents).sample, x))
    return [Row(name, " / ".join(f"{v:.1f}" for v in values) + " dB", "25 dB", "23")]


def adherence(bench: Bench) -> list[Row]:
    """Ask for things from an empty grey canvas at strength 1, and change the colour word."""
    scenes = asked_scenes(3 * bench.count, 1000)
    swapped = [
        replace(s, things=(replace(s.things[0], colour=_other(s, n)),))
        for n, s in enumerate(scenes)
    ]
    canvas = grey_canvas(len(scenes))
    made = [
        refine(bench.pipeline, [prompt_for(s) for s in some], canvas, strength=1, guidance=GUIDANCE)
        for some in (scenes, swapped)
    ]
    kind, colour = right(bench, made[0], scenes)
    _, followed = right(bench, made[1], swapped)
    return [
        Row("colour as prompted, strength 1, 4 steps", percent(colour), "97 %", "92 %"),
        Row("colour follows the swapped word, same seed", percent(followed), "97 %", "92 %"),
        Row("kind as prompted, strength 1, 4 steps", percent(kind), "92 %", "80 %"),
    ]


def _other(scene: Scene, number: int) -> str:
    """Return another colour that is not the background's either."""
    taken = {scene.things[0].colour, scene.ground, "white", "black"}
    free = [name for name in COLOUR_NAMES if name not in taken]
    return free[number % len(free)]


def from_doodles(bench: Bench) -> list[Row]:
    """Refine doodles at strength 0.6: kind and colour stay, in the style asked for."""
    shares, saturation, kinds, colours = {}, 0.0, [], []
    many = max(2, bench.count // 4)
    for index, style in enumerate(STYLES):
        scenes = asked_scenes(many, 2000 + index * many)
        doodles = render(scenes, DOODLE, (512, 512))
        prompts = [prompt_for(s, style) for s in scenes]
        made = refine(bench.pipeline, prompts, doodles, strength=0.6, guidance=GUIDANCE)
        told = bench.judge(made).style.argmax(1)
        shares[style] = (told == index).float().mean().item()
        kind, colour = right(bench, made, scenes)
        kinds.append(kind)
        if style == "SKETCH_BW":
            saturation = saturation_of(made)
        else:
            colours.append(colour)
    print("style by style:", ", ".join(f"{k} {percent(v)}" for k, v in shares.items()))
    mean = sum(shares.values()) / len(shares)
    return [
        Row("style as asked, doodle at strength 0.6", percent(mean), "92 %", "85 %"),
        Row("kind kept there", percent(sum(kinds) / len(kinds)), "-", "-"),
        Row("colour kept there", percent(sum(colours) / len(colours)), "-", "-"),
        Row("SKETCH_BW mean saturation", f"{saturation:.3f}", "under 0.05", "same"),
    ]


def adapters(bench: Bench) -> list[Row]:
    """Refine doodles in the styles that have a LoRA, with it and without."""
    rows = []
    for path in sorted((bench.folder / "loras").glob("*.safetensors")):
        scenes = asked_scenes(max(4, bench.count // 2), 3000)
        doodles = render(scenes, DOODLE, (512, 512))
        prompts = [prompt_for(s, path.stem) for s in scenes]
        off = refine(bench.pipeline, prompts, doodles, strength=0.6, guidance=GUIDANCE)
        bench.pipeline.load_lora_weights(path)
        on = refine(bench.pipeline, prompts, doodles, strength=0.6, guidance=GUIDANCE)
        bench.pipeline.unload_lora_weights()
        levels = 255 * (on - off).abs().mean().item()
        told = [
            (bench.judge(made).style.argmax(1) == STYLES.index(path.stem)).float().mean().item()
            for made in (on, off)
        ]
        value = f"{levels:.1f} levels, judged so {percent(told[0])}, without {percent(told[1])}"
        if path.stem == "SKETCH_BW":
            value += f", saturation {saturation_of(on):.3f}, without {saturation_of(off):.3f}"
        rows.append(Row(f"LoRA {path.stem}", value, "over 10 levels, judged so", "same"))
    return rows


def stays(bench: Bench) -> list[Row]:
    """Refine doodles on plain grounds at strength 0.5: the thing stays where it was."""
    scenes = [
        replace(
            s,
            place="plain",
            ground="white",
            things=(Thing(t.kind, ("red", "blue", "green", "purple")[n % 4], t.x, t.y, 0.3),),
        )
        for n, s in enumerate(asked_scenes(bench.count, 4000))
        for t in s.things
    ]
    doodles = render(scenes, DOODLE, (512, 512))
    prompts = [prompt_for(s) for s in scenes]
    made = refine(bench.pipeline, prompts, doodles, strength=0.5, guidance=GUIDANCE)
    shares = []
    for before, after in zip(doodles, made, strict=True):
        a, b = mask_of(before), mask_of(after)
        shares.append(((a & b).sum() / (a | b).sum().clamp_min(1)).item())
    rows = [
        Row("thing stays, strength 0.5 (IoU)", f"{sum(shares) / len(shares):.2f}", "0.6", "same")
    ]
    moved = []
    for strength in (0.2, 0.4, 0.6, 0.8):
        made = refine(bench.pipeline, prompts, doodles, strength=strength, guidance=GUIDANCE)
        moved.append((made - doodles).square().mean().sqrt().item())
    rises = all(a < b for a, b in itertools.pairwise(moved))
    told = ", ".join(f"{m:.3f}" for m in moved) + ("" if rises else " (does not rise)")
    return [*rows, Row("distance at strength 0.2, 0.4, 0.6, 0.8", told, "rising", "same")]


def guidance_helps(bench: Bench) -> list[Row]:
    """Compare how sure the judge is of kind and colour at guidance 1 and 8.

    From an empty canvas there is nothing but the prompt to follow. Over the doodle of another
    thing, in another colour, guidance shows: prompt and picture contradict each other.
    """
    scenes = asked_scenes(2 * bench.count, 5000)
    others = [replace(s, things=(_another(s, n),)) for n, s in enumerate(scenes)]
    told = []
    for name, canvas, strength in (
        ("empty canvas", grey_canvas(len(scenes)), 1.0),
        ("another thing's doodle at 0.8", render(others, DOODLE, (512, 512)), 0.8),
    ):
        low, high = (_sureness(bench, scenes, canvas, strength, guidance) for guidance in (1, 8))
        told.append(f"{name} {high:.3f} against {low:.3f}")
    return [Row("adherence at guidance 8 against 1", "; ".join(told), "higher", "same")]


def _another(scene: Scene, number: int) -> Thing:
    """Return a thing of another kind and colour at the place of a scene's."""
    thing = scene.things[0]
    kind = KINDS[(KINDS.index(thing.kind) + len(KINDS) // 2) % len(KINDS)]
    return replace(thing, kind=kind, colour=_other(scene, number))


def _sureness(
    bench: Bench, scenes: list[Scene], canvas: Tensor, strength: float, guidance: float
) -> float:
    """Return the judge's mean probability of the kind and of the colour that were asked for."""
    kinds, colours = truth(scenes)
    prompts = [prompt_for(s) for s in scenes]
    made = refine(bench.pipeline, prompts, canvas, strength=strength, guidance=guidance)
    verdict = bench.judge(made)
    kind = verdict.kind.softmax(1).gather(1, kinds[:, None]).mean()
    colour = verdict.colour.softmax(1).gather(1, colours[:, None]).mean()
    return float((kind + colour) / 2)


def distances(bench: Bench, shape: tuple[int, int] = (512, 512)) -> list[Row]:
    """Compare Frechet distances of the student and the teacher, if one is at hand, to true renders.

    At a size that is served: at one that was not learned, the distance tells how both fail there.
    The true renders are posed, as those were that had nothing under the noise. Beside them stand
    true renders for the same prompts, drawn again: nearer than that, pictures need not come.
    """
    many = len(STYLES) * max(6, bench.count)
    styles = [STYLES[n % len(STYLES)] for n in range(many)]
    scenes = single_scenes(HELD_OUT_SEEDS + 6000, many, posed=True)
    again = [drawn_again(s, HELD_OUT_SEEDS + 600_000 + 100 * n) for n, s in enumerate(scenes)]
    prompts = [caption(s, y) for s, y in zip(scenes, styles, strict=True)]
    canvas = grey_canvas(1, shape).expand(many, -1, -1, -1)
    made = refine(bench.pipeline, prompts, canvas, strength=1, guidance=GUIDANCE)
    seen = {"student 4": bench.judge(made).features}
    seen["true renders drawn again"] = _seen_renders(bench, again, styles, shape)
    if is_taught(bench.work):
        seen |= _seen_of_teacher(bench, prompts, shape)
    real = _seen_renders(bench, scenes, styles, shape)
    told = ", ".join(f"{name} {frechet(these, real):.1f}" for name, these in seen.items())
    if "teacher 4" not in seen:
        told += "; no teacher has learned here"
    target = "student < 1.5 x teacher 50, < half of teacher 4"
    return [Row("Frechet distance", f"{told} ({many} pictures each)", target, "same")]


def _seen_of_teacher(bench: Bench, prompts: list[str], shape: tuple[int, int]) -> dict[str, Tensor]:
    """Return the judge's features [B, F] of the teacher's pictures, by how they are sampled."""
    teacher, vae = load_teacher(bench.work).eval(), bench.pipeline.vae
    seen = {}
    for name, steps, guide in (
        ("teacher 4", 4, guided_denoised),
        ("teacher 4 under plain guidance", 4, guided),
        ("teacher 50", 50, guided_denoised),
        ("teacher 50 under plain guidance", 50, guided),
    ):
        made = sample_teacher(
            teacher, vae, prompts, shape, steps=steps, guidance=GUIDANCE, guide=guide
        )
        seen[name] = bench.judge(made).features
    return seen


def _seen_renders(
    bench: Bench, scenes: list[Scene], styles: list[str], shape: tuple[int, int]
) -> Tensor:
    """Return the judge's features [B, F] of true renders, of a scene and a style each."""
    pairs = tqdm(list(zip(scenes, styles, strict=True)), desc="true renders", leave=False)
    return torch.cat([bench.judge(render([s], style, shape)).features for s, style in pairs])


def nine_shapes(bench: Bench) -> list[Row]:
    """Refine doodles at strength 0.8 in each of the nine shapes.

    What the judge says of true renders of the same scenes stands beside it.
    """
    rows = []
    for shape in SHAPES:
        scenes = asked_scenes(max(len(KINDS), bench.count // 2), 7000)
        doodles = render(scenes, DOODLE, shape)
        prompts = [prompt_for(s) for s in scenes]
        made = refine(bench.pipeline, prompts, doodles, strength=0.8, guidance=GUIDANCE)
        kind, colour = right(bench, made, scenes)
        known, _ = right(bench, render(scenes, "NONE", shape), scenes)
        told = f"kind {percent(kind)} (true renders {percent(known)}), colour {percent(colour)}"
        rows.append(Row(f"{shape[0]} x {shape[1]}, doodle at 0.8", told, "-", "reported"))
    return rows


def speed_and_precision(bench: Bench) -> list[Row]:
    """Time 512 x 512 in four steps as it is served here, and compare bf16 with float32."""
    auto = pick_dtype("auto", "cpu")
    made, seconds = _one_by_one(bench, auto)
    near = "not measured: this processor has no units for it"
    if has_bf16_products():
        full, half = (
            made if dtype == auto else _one_by_one(bench, dtype)[0]
            for dtype in (torch.float32, torch.bfloat16)
        )
        near = f"{psnr(full, half) - 6.02:.1f} dB"  # 6.02: a span of 1 instead of 2
    name = f"512 x 512, 4 steps, {_served_as()}, bare diffusers, p50"
    return [
        Row(name, f"{seconds:.2f} s", "1.0 s", "-"),
        Row("bf16 against float32", near, "35 dB", "same"),
    ]


def _one_by_one(bench: Bench, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Return pictures [B, 3, H, W] that were asked for singly, and a request's median seconds."""
    scenes = asked_scenes(9, 8000)
    doodles = render(scenes, DOODLE, (512, 512))
    pipeline = load_pipeline(bench.folder, torch.device("cpu"), dtype)
    pictures, seconds = [], []
    for scene, doodle in zip(scenes, doodles, strict=True):
        begin = time.monotonic()
        pictures.append(
            refine(pipeline, [prompt_for(scene)], doodle[None], strength=0.6, guidance=GUIDANCE)
        )
        seconds.append(time.monotonic() - begin)
    return torch.cat(pictures), median(seconds[1:])  # the first one warms up


def through_the_service(bench: Bench, seconds: float = 30.0) -> list[Row]:
    """Time 512 x 512 in four steps through the service, by its own benchmark."""
    value = f"{median_seconds(bench.folder, seconds):.2f} s"
    name = f"512 x 512, 4 steps, {_served_as()}, through the service, p50"
    return [Row(name, value, "1.0 s", "same")]


def _served_as() -> str:
    """Return the dtype that a CPU's engine takes here, and the kind of processor."""
    dtype = str(pick_dtype("auto", "cpu")).removeprefix("torch.")
    return f"{dtype}, {get_cpu_capability()}"


Measure = Callable[[Bench], list[Row]]
MEASURES: tuple[Measure, ...] = (
    autoencoder_quality, photographs, adherence, from_doodles, adapters, stays, guidance_helps,
    distances, nine_shapes, speed_and_precision, through_the_service,
)  # fmt: skip
