"""The text encoder's lessons: the questions, and that they are learned."""

from __future__ import annotations

import random

import torch

from models.training.networks.architecture import TEXT_WIDTH, build_text_encoder
from models.training.scenes.scene import KINDS, draw_scene
from models.training.stages.text_encoder import (
    NONE_SAID,
    QUESTIONS,
    Reader,
    answers,
    draw_captions,
    reading_accuracy,
    reading_loss,
)


def test_every_question_has_an_answer_in_range() -> None:
    """Answers lie within what a head can say; a lone thing has no other beside it."""
    for seed in range(200):
        scene = draw_scene(seed)
        told = dict(zip(QUESTIONS, answers(scene, "NONE"), strict=True))
        assert all(value == NONE_SAID or 0 <= value < QUESTIONS[q] for q, value in told.items())
        assert KINDS[told["kind"]] == scene.things[0].kind
        if len(scene.things) == 1:
            assert told["other kind"] == NONE_SAID


def test_reading_is_learned() -> None:
    """Some steps on captions make the loss on other captions fall."""
    torch.manual_seed(0)
    reader = Reader(build_text_encoder(), TEXT_WIDTH)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=1e-3)
    unseen, truth = draw_captions(random.Random(1), 32)
    with torch.no_grad():
        before = reading_loss(reader(unseen)[0], truth)
    lot = random.Random(2)
    for _ in range(15):
        tokens, told = draw_captions(lot, 32)
        loss = reading_loss(reader(tokens)[0], told)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        assert reading_loss(reader(unseen)[0], truth) < 0.95 * before
    shares = reading_accuracy(reader, 64)
    assert shares.keys() == QUESTIONS.keys()
    assert shares["style"] > 2 / QUESTIONS["style"]  # what is learned first, and not by chance
