"""The tokenizer, and its ids in the text encoder's config."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from models.styles.presets import load_styles
from models.training.networks.architecture import build_text_encoder
from models.training.networks.tokenizer import (
    MAX_TOKENS,
    build_tokenizer,
    build_vocabulary,
    tokenize,
)
from models.training.scenes.captions import caption
from models.training.scenes.palette import COLOUR_NAMES
from models.training.scenes.scene import KINDS, draw_scene
from models.training.train import POCKET


@pytest.mark.parametrize(
    "text", ["a red heart", "naïve café", "漢字かな", "🎉👩‍🚀", "tab\tand\nline", "\u202eabc", "ß"]
)
def test_unicode(text: str) -> None:
    """No text is unknown: decoding returns the letters, in lower case."""
    tokenizer = build_tokenizer()
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[:-1]
    back = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(back.split()) == "".join(text.lower().split())


def test_bytes() -> None:
    """The alphabet has 256 bytes, and 256 bytes that end a word."""
    vocabulary, _ = build_vocabulary()
    letters = [token for token in vocabulary if len(token.removesuffix("</w>")) == 1]
    assert len(letters) == 512
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))


def test_kinds_and_colours_are_tokens() -> None:
    """Every kind and every colour is a single token."""
    tokenizer = build_tokenizer()
    for word in (*KINDS, *COLOUR_NAMES):
        assert len(tokenizer(word).input_ids) == 3, word


def test_length() -> None:
    """Captions in every style have under 60 tokens; rows have exactly 77, truncated if longer."""
    texts = [caption(draw_scene(n), style) for n, style in enumerate(load_styles())]
    rows = tokenize([*texts, "x " * 500])
    assert {len(row) for row in rows} == {MAX_TOKENS}
    end = build_tokenizer().eos_token_id
    assert all(row[-1] == end for row in rows)
    assert all(row.index(end) < 60 for row in rows[:-1])


def test_special_ids(tmp_path: Path) -> None:
    """Begin, end and padding are those of the config, also after saving and loading."""
    config = build_text_encoder().config
    build_tokenizer().save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert config.eos_token_id == loaded.eos_token_id != 2
    assert config.bos_token_id == loaded.bos_token_id
    assert config.pad_token_id == loaded.pad_token_id
    assert config.vocab_size == len(loaded)
    assert loaded("a red heart!").input_ids == build_tokenizer()("a red heart!").input_ids


def test_vocabulary_is_the_shipped_one() -> None:
    """The vocabulary built from the captions is the shipped tokenizer's: a warm start is valid."""
    vocabulary, _ = build_vocabulary()
    assert CLIPTokenizer.from_pretrained(POCKET / "tokenizer").get_vocab() == vocabulary
