"""Stage 3: the text encoder learns to read, before the teacher learns to draw what it says.

Left to the teacher's loss alone, the encoder told styles and places soon, since they fill the
picture, and hardly a word of the thing: after a hundred thousand pictures a linear probe of its
states named the kind no better than chance. So it is first asked in plain words what a caption
says, of its last state and of the mean of its states, which is what the UNet reads most easily.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from models.training.loop.checkpoint import Budget
from models.training.loop.fit import fit
from models.training.loop.precision import mixed
from models.training.networks.tokenizer import tokenize
from models.training.scenes.captions import caption
from models.training.scenes.palette import COLOUR_NAMES
from models.training.scenes.scene import KINDS, PLACES, Scene, draw_scene
from models.training.stages.latent_dataset import STYLES
from models.training.stages.teacher import Teacher, TeacherState

READ_SEEDS = 80_000_000
BATCH = 64
NONE_SAID = -100  # what cross_entropy leaves out

# What is asked of a caption, and how many answers there are.
QUESTIONS = {
    "kind": len(KINDS),
    "colour": len(COLOUR_NAMES),
    "other kind": len(KINDS),
    "other colour": len(COLOUR_NAMES),
    "place": len(PLACES),
    "ground": len(COLOUR_NAMES),
    "style": len(STYLES),
    "count": 3,
}


def answers(scene: Scene, style: str) -> list[int]:
    """Return the number of the right answer to each of QUESTIONS, NONE_SAID where there is none."""
    thing, other = scene.things[0], scene.things[-1]
    has_other = scene.relation not in {"", "twins"}
    return [
        KINDS.index(thing.kind),
        COLOUR_NAMES.index(thing.colour),
        KINDS.index(other.kind) if has_other else NONE_SAID,
        COLOUR_NAMES.index(other.colour) if has_other else NONE_SAID,
        PLACES.index(scene.place),
        COLOUR_NAMES.index(scene.ground) if scene.place == "plain" else NONE_SAID,
        STYLES.index(style),
        len(scene.things) - 1,
    ]


def draw_captions(lot: random.Random, count: int) -> tuple[Tensor, Tensor]:
    """Return token ids [count, 77] of captions and the answers [count, questions]."""
    scenes = [draw_scene(READ_SEEDS + lot.randrange(1 << 30)) for _ in range(count)]
    styles = [lot.choice(STYLES) for _ in scenes]
    pairs = list(zip(scenes, styles, strict=True))
    tokens = torch.tensor(tokenize([caption(*pair) for pair in pairs]))
    return tokens, torch.tensor([answers(*pair) for pair in pairs])


class Reader(nn.Module):
    """A text encoder and the heads that answer from its states; the heads are thrown away."""

    def __init__(self, text: nn.Module, width: int) -> None:
        super().__init__()
        self.text = text
        self.heads = nn.ModuleList(nn.Linear(width, sum(QUESTIONS.values())) for _ in range(2))

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Return logits [B, answers], of the mean state and of the last."""
        states = self.text(tokens).last_hidden_state
        pooled = (states.mean(1), states[:, -1])
        return [head(pool) for head, pool in zip(self.heads, pooled, strict=True)]


def reading_loss(logits: Tensor, told: Tensor) -> Tensor:
    """Return the cross entropy of logits [B, answers], summed over the questions."""
    groups = torch.split(logits.float(), list(QUESTIONS.values()), 1)
    losses = [
        F.cross_entropy(group, told[:, index], ignore_index=NONE_SAID, reduction="sum")
        for index, group in enumerate(groups)
    ]
    return torch.stack(losses).sum() / len(told)


class ReadingRun:
    """The text encoder's training, from the teacher's state, or from nothing."""

    name = "reading"

    def __init__(self, folder: Path, device: torch.device, rate: float) -> None:
        self.state = TeacherState(folder)
        self.teacher: Teacher = self.state.teacher
        self.device, self.rate, self.seen = device, rate, 0
        width = self.teacher.text.config.hidden_size
        self.reader = Reader(self.teacher.text, width).to(device)
        self.lot = random.Random(self.state.seen)  # noqa: S311 - captions, not secrets
        self.optimizer = torch.optim.AdamW(self.reader.parameters(), lr=rate, weight_decay=0.01)

    def step(self, factor: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        tokens, told = (part.to(self.device) for part in draw_captions(self.lot, BATCH))
        with mixed(self.device):
            both = self.reader(tokens)
        loss = reading_loss(both[0], told) + reading_loss(both[1], told)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.reader.parameters(), 1.0)
        self.optimizer.step()
        self.seen += BATCH
        return loss

    def save(self) -> None:
        """Write the encoder into the teacher's state, its average too."""
        self.state.save_text()


def train_reading(
    folder: Path, *, device: torch.device, minutes: float, rate: float = 1e-3
) -> None:
    """Train the text encoder for `minutes` and write it into the teacher's state in `folder`."""
    run = ReadingRun(folder, device, rate)
    fit(run, Budget(minutes, decay=0.6), save_every=500)
    shares = reading_accuracy(run.reader)
    print("read rightly:", ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))


@torch.no_grad()
def reading_accuracy(reader: Reader, captions: int = 256) -> dict[str, float]:
    """Return the share of right answers by question, of the mean state, on captions unseen."""
    unseen = draw_captions(random.Random(-1), captions)  # noqa: S311 - captions, not secrets
    tokens, told = (part.to(next(reader.parameters()).device) for part in unseen)
    groups = torch.split(reader(tokens)[0], list(QUESTIONS.values()), 1)
    shares = {}
    for index, (question, group) in enumerate(zip(QUESTIONS, groups, strict=True)):
        known = told[:, index] != NONE_SAID
        shares[question] = (group.argmax(1) == told[:, index])[known].float().mean().item()
    return shares
