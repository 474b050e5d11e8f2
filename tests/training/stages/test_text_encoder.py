"""The text encoder's stage: the labels, and that probes learn them."""

from __future__ import annotations

import random

import torch

from models.training.networks.architecture import build_text_encoder
from models.training.scenes.scene import KINDS, draw_scene
from models.training.stages.text_encoder import (
    ATTRIBUTES,
    NO_LABEL,
    TextProbe,
    draw_captions,
    labels_of,
    probe_accuracy,
    probe_loss,
)


def test_labels() -> None:
    """Labels are within their attribute's range; a single thing has no other kind."""
    for seed in range(200):
        scene = draw_scene(seed)
        labels = dict(zip(ATTRIBUTES, labels_of(scene, "NONE"), strict=True))
        assert all(v == NO_LABEL or 0 <= v < ATTRIBUTES[name] for name, v in labels.items())
        assert KINDS[labels["kind"]] == scene.things[0].kind
        if len(scene.things) == 1:
            assert labels["other kind"] == NO_LABEL


def test_probes_learn() -> None:
    """Some steps on captions lower the loss on other captions; the style is learned first."""
    torch.manual_seed(0)
    probe = TextProbe(build_text_encoder())
    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-3)
    held_out, truth = draw_captions(random.Random(1), 32)
    with torch.no_grad():
        before = probe_loss(probe(held_out)[0], truth)
    rng = random.Random(2)
    for _ in range(15):
        tokens, labels = draw_captions(rng, 32)
        loss = probe_loss(probe(tokens)[0], labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        assert probe_loss(probe(held_out)[0], truth) < 0.95 * before
    accuracy = probe_accuracy(probe, 64)
    assert accuracy.keys() == ATTRIBUTES.keys()
    assert accuracy["style"] > 2 / ATTRIBUTES["style"]  # twice the chance
