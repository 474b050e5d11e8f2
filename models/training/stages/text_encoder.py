"""Stage 3: the text encoder learns to predict the attributes of a caption, before the teacher.

Trained by the teacher's loss alone, the encoder soon represented styles and places, which fill the
image, and hardly the thing: after a hundred thousand images a linear probe of its states predicted
the kind no better than chance. It is therefore first trained by linear probes of its last state and
of the mean of its states, which the UNet can read most easily.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from models.training.loop.fit import Budget, fit, optimizer_step
from models.training.loop.precision import mixed
from models.training.networks.architecture import TEXT_WIDTH
from models.training.networks.tokenizer import tokenize
from models.training.scenes.captions import caption
from models.training.scenes.palette import COLOUR_NAMES
from models.training.scenes.renderers import ALL_STYLES
from models.training.scenes.scene import KINDS, PLACES, Scene, draw_scene
from models.training.stages.teacher import resume_teacher

CAPTION_SEEDS = 80_000_000
BATCH_SIZE = 64
NO_LABEL = -100  # the default `ignore_index` of cross_entropy

ATTRIBUTES = {
    "kind": len(KINDS),
    "colour": len(COLOUR_NAMES),
    "other kind": len(KINDS),
    "other colour": len(COLOUR_NAMES),
    "place": len(PLACES),
    "ground": len(COLOUR_NAMES),
    "style": len(ALL_STYLES),
    "count": 3,
}
"""What a caption says, and the number of classes."""


def labels_of(scene: Scene, style: str) -> list[int]:
    """Return the class of each attribute; NO_LABEL where the caption does not have it."""
    thing, other = scene.things[0], scene.things[-1]
    has_other = scene.relation not in {"", "twins"}
    return [
        KINDS.index(thing.kind),
        COLOUR_NAMES.index(thing.colour),
        KINDS.index(other.kind) if has_other else NO_LABEL,
        COLOUR_NAMES.index(other.colour) if has_other else NO_LABEL,
        PLACES.index(scene.place),
        COLOUR_NAMES.index(scene.ground) if scene.place == "plain" else NO_LABEL,
        ALL_STYLES.index(style),
        len(scene.things) - 1,
    ]


def draw_captions(rng: random.Random, count: int) -> tuple[Tensor, Tensor]:
    """Return token ids [count, 77] of captions and their labels [count, attributes]."""
    scenes = [draw_scene(CAPTION_SEEDS + rng.randrange(1 << 30)) for _ in range(count)]
    styles = [rng.choice(ALL_STYLES) for _ in scenes]
    pairs = list(zip(scenes, styles, strict=True))
    tokens = torch.tensor(tokenize([caption(*pair) for pair in pairs]))
    return tokens, torch.tensor([labels_of(*pair) for pair in pairs])


class TextProbe(nn.Module):
    """A text encoder with linear heads on its states; the heads are only for training."""

    def __init__(self, text: nn.Module) -> None:
        super().__init__()
        self.text = text
        self.heads = nn.ModuleList(
            nn.Linear(TEXT_WIDTH, sum(ATTRIBUTES.values())) for _ in range(2)
        )

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Return logits [B, classes] of the mean state and of the last."""
        states = self.text(tokens).last_hidden_state
        pooled = (states.mean(1), states[:, -1])
        return [head(pool) for head, pool in zip(self.heads, pooled, strict=True)]


def probe_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy of logits [B, classes], summed over the attributes."""
    groups = torch.split(logits.float(), list(ATTRIBUTES.values()), 1)
    losses = [
        F.cross_entropy(group, labels[:, index], reduction="sum")
        for index, group in enumerate(groups)
    ]
    return torch.stack(losses).sum() / len(labels)


class TextEncoderRun:
    """The text encoder's training, from the teacher's state or from nothing."""

    name = "text-encoder"

    def __init__(self, folder: Path, device: torch.device, rate: float) -> None:
        self.state = resume_teacher(folder)
        self.device, self.rate, self.seen = device, rate, 0
        self.probe = TextProbe(self.state.net.text).to(device)
        self.rng = random.Random(self.state.seen)  # noqa: S311 - captions, not secrets
        self.optimizer = torch.optim.AdamW(self.probe.parameters(), weight_decay=0.01)

    def step(self, factor: float) -> Tensor:
        tokens, labels = (part.to(self.device) for part in draw_captions(self.rng, BATCH_SIZE))
        with mixed(self.device):
            mean, last = self.probe(tokens)
        loss = probe_loss(mean, labels) + probe_loss(last, labels)
        optimizer_step(loss, self.optimizer, self.probe, self.rate * factor)
        self.seen += BATCH_SIZE
        return loss

    def save(self) -> None:
        """Write the encoder into the teacher's state, as weights and as their average."""
        for name, value in self.state.net.text.state_dict().items():
            self.state.average.tensors[f"text.{name}"].copy_(value)
        self.state.save()


def train_text_encoder(
    folder: Path, *, device: torch.device, minutes: float, rate: float = 1e-3
) -> None:
    """Train the text encoder for `minutes` and write it into the teacher's state in `folder`."""
    run = TextEncoderRun(folder, device, rate)
    fit(run, Budget(minutes, decay=0.6), save_every=500)
    shares = probe_accuracy(run.probe)
    print("accuracy:", ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))


@torch.no_grad()
def probe_accuracy(probe: TextProbe, captions: int = 256) -> dict[str, float]:
    """Return the accuracy by attribute, from the mean state, on captions outside the training."""
    held_out = draw_captions(random.Random(-1), captions)  # noqa: S311 - captions, not secrets
    tokens, labels = (part.to(next(probe.parameters()).device) for part in held_out)
    groups = torch.split(probe(tokens)[0], list(ATTRIBUTES.values()), 1)
    accuracy = {}
    for index, (attribute, group) in enumerate(zip(ATTRIBUTES, groups, strict=True)):
        has_label = labels[:, index] != NO_LABEL
        is_right = group.argmax(1) == labels[:, index]
        accuracy[attribute] = is_right[has_label].float().mean().item()
    return accuracy
