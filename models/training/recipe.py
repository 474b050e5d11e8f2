"""The stages of `--stage all`: their order, their shapes and their shares of the minutes."""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, int]  # height, width in pixels

SMALL = "128x128"
LARGE = "512x512"
OTHER_SERVED = (
    "512x640", "640x512", "640x640", "512x1024", "1024x512", "640x1024", "1024x640", "1024x1024",
)  # fmt: skip


@dataclass(frozen=True)
class Subset:
    """One shape of a mixture: the chunks of the data set, scenes a chunk, its weight in a step."""

    shape: Shape
    chunks: int
    scenes: int
    weight: float = 1.0
    for_trunk: bool = False  # trains the trunk alone (architecture.Trunk)


def parse_mixture(text: str) -> list[Subset]:
    """Read "128x128:40:64:0.8,512x640:2:8:0.1": shape, chunks, scenes a chunk, weight.

    "128x128^:250:50:0.9" trains the trunk alone, on small images.
    """
    subsets = []
    for item in text.split(","):
        shape, chunks, scenes, weight = item.split(":")
        height, width = (int(side) for side in shape.removesuffix("^").split("x"))
        for_trunk = shape.endswith("^")
        subsets.append(Subset((height, width), int(chunks), int(scenes), float(weight), for_trunk))
    return subsets


@dataclass(frozen=True)
class Step:
    """A stage, its share of the minutes, and its mixture (see `parse_mixture`)."""

    stage: str
    share: float
    mixture: str


def recipe(*, large: bool) -> list[Step]:
    """Return all steps; `large` is sized for a GPU, else for two cores.

    The trunk learns the meaning of words from small images, with some large ones, which keep it
    compatible with the outer levels. Then large images teach the styles. The other served sizes
    come last. (A UNet that has seen only latents of 16 x 16 draws several things instead of one at
    64 x 64.)
    """
    factor = 16 if large else 1  # of scenes a chunk
    small, big = f"{SMALL}^:250:{50 * factor}", f"{LARGE}:120:{8 * factor}"
    others = ",".join(
        f"{shape}:3:{2 * factor}:{0.15 / len(OTHER_SERVED)}" for shape in OTHER_SERVED
    )
    every, served = f"{small}:0.1,{big}:0.75,{others}", f"{big}:0.85,{others}"
    distilled = f"{small}:0.5,{big}:0.35,{others}"
    return [
        Step("autoencoder", 0.17, every),
        Step("latent-dataset", 0.15, every),
        Step("text-encoder", 0.04, every),
        Step("teacher", 0.15, f"{small}:0.9,{big}:0.1"),
        Step("teacher", 0.14, f"{small}:0.25,{big}:0.75"),
        Step("teacher", 0.06, every),
        Step("guidance", 0.05, f"{small}:0.5,{big}:0.5"),
        Step("trajectory", 0.08, distilled),
        Step("consistency", 0.02, distilled),
        Step("rollout", 0.05, served),
        Step("adversarial", 0.06, served),
        Step("lora", 0.03, served),
        Step("export", 0.0, served),
    ]
