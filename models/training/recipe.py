"""What `--stage all` does in which order, on which shapes, for which share of the minutes."""

from __future__ import annotations

from dataclasses import dataclass

from models.training.stages.latent_dataset import Shape

SMALL = "128x128"
LARGE = "512x512"
SERVED = (
    "512x640", "640x512", "640x640", "512x1024", "1024x512", "640x1024", "1024x640", "1024x1024",
)  # fmt: skip


@dataclass(frozen=True)
class Diet:
    """A shape, how many chunks of how many scenes its bank has, and its weight in a step."""

    shape: Shape
    chunks: int
    scenes: int
    weight: float
    for_trunk: bool = False  # teaches only the trunk (nets.Trunk)


def parse_diet(text: str) -> list[Diet]:
    """Read "128x128:40:64:0.8,512x640:2:8:0.1": shape, chunks, scenes a chunk, weight.

    "128x128^:250:50:0.9" teaches the trunk alone, from small pictures.
    """
    diets = []
    for item in text.split(","):
        shape, chunks, scenes, weight = item.split(":")
        height, width = (int(side) for side in shape.removesuffix("^").split("x"))
        for_trunk = shape.endswith("^")
        diets.append(Diet((height, width), int(chunks), int(scenes), float(weight), for_trunk))
    return diets


@dataclass(frozen=True)
class Step:
    """A stage, its share of the minutes, and its diet (see parse_diet)."""

    stage: str
    share: float
    diet: str


def _served(chunks: int, scenes: int, weight: float) -> str:
    """Return the diet of the shapes that are served beside 512 x 512."""
    return ",".join(f"{shape}:{chunks}:{scenes}:{weight / len(SERVED)}" for shape in SERVED)


def recipe(*, large: bool) -> list[Step]:
    """Return the whole chain; `large` is for a GPU, else it is sized for two cores.

    The trunk learns from small pictures what the words mean, and large ones among them keep it
    fitting the outer levels; then large ones teach how a style is drawn; the served sizes come
    last. (A whole UNet that has only seen 16 x 16 latents draws several things for one at 64 x 64.)
    """
    many = 16 if large else 1  # scenes a chunk, times
    small, big = f"{SMALL}^:250:{50 * many}", f"{LARGE}:120:{8 * many}"
    wide = _served(3, 2 * many, 0.15)
    every, served = f"{small}:0.1,{big}:0.75,{wide}", f"{big}:0.85,{wide}"
    return [
        Step("autoencoder", 0.17, every),
        Step("bank", 0.15, every),
        Step("reading", 0.04, every),
        Step("teacher", 0.15, f"{small}:0.9,{big}:0.1"),
        Step("teacher", 0.14, f"{small}:0.25,{big}:0.75"),
        Step("teacher", 0.06, every),
        Step("guided", 0.05, f"{small}:0.5,{big}:0.5"),
        Step("ended", 0.08, f"{small}:0.5,{big}:0.35,{wide}"),
        Step("student", 0.02, f"{small}:0.5,{big}:0.35,{wide}"),
        Step("rehearsed", 0.05, served),
        Step("adversarial", 0.06, served),
        Step("lora", 0.03, served),
        Step("export", 0.0, served),
    ]
