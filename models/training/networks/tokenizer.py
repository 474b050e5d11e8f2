"""The tokenizer: a CLIPTokenizer with a vocabulary built from the captions and all bytes.

Merges are made word by word: the pieces that the earlier merges leave of a word are joined from the
left into one token. Later merges rank lower and never split an earlier word.
"""

from __future__ import annotations

import itertools
import re
from functools import cache

from transformers import CLIPTokenizer

from models.styles.presets import load_styles
from models.training.scenes.captions import caption
from models.training.scenes.renderers import DOODLE
from models.training.scenes.scene import draw_scene

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 77
_END = "</w>"
# Likely words of prompts that no caption has.
_MORE_WORDS = """
an the of in on at with and or no very bright dark light beautiful detailed tiny huge tall round
golden silver cyan magenta violet gray colourful colorful forest beach ocean lake river hill
grass sand water sky cloud clouds star stars sunset sunrise morning evening day winter summer
ball apple dog cat bird person face castle tower bridge road city village garden ship sailboat
three four many one painting drawing photo image art style background foreground
""".split()  # noqa: SIM905 - a list of words reads best as words


def byte_alphabet() -> list[str]:
    """Return GPT-2's printable characters for the 256 bytes, in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def common_words(captions: int = 6000) -> list[str]:
    """Return the words of captions and style templates, by falling frequency."""
    counts: dict[str, int] = dict.fromkeys(_MORE_WORDS, 1)
    texts = [style.apply("") for style in load_styles().values()]
    texts += [caption(draw_scene(n), "NONE" if n % 9 else DOODLE) for n in range(captions)]
    for text in texts:
        for word in re.findall(r"[a-z]+", text.lower()):
            counts[word] = counts.get(word, 0) + 1
    return sorted(counts, key=lambda word: (-counts[word], word))


def _merge(pieces: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Join pieces by byte pair encoding: the pair of the lowest rank first."""
    while len(pieces) > 1:
        pairs = list(itertools.pairwise(pieces))
        best = min(pairs, key=lambda pair: ranks.get(pair, 1 << 30))
        if best not in ranks:
            break
        at = pairs.index(best)
        pieces = [*pieces[:at], best[0] + best[1], *pieces[at + 2 :]]
    return pieces


@cache
def build_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary (begin and end tokens last, as in CLIP) and the merges."""
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(letter + _END for letter in alphabet)]
    ranks: dict[tuple[str, str], int] = {}
    for word in common_words():
        pieces = _merge([*word[:-1], word[-1] + _END], ranks)
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            ranks[pair] = len(ranks)
            tokens.append(pair[0] + pair[1])
            pieces = [pair[0] + pair[1], *pieces[2:]]
    tokens = list(dict.fromkeys(tokens))
    vocabulary = {token: number for number, token in enumerate([*tokens, BOS, EOS])}
    return vocabulary, list(ranks)


@cache
def build_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer. No text is unknown; padding is the end token, as in CLIP."""
    vocabulary, merges = build_vocabulary()
    return CLIPTokenizer(
        vocab=dict(vocabulary),
        merges=list(merges),
        unk_token=EOS,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=MAX_TOKENS,
    )


def tokenize(texts: list[str]) -> list[list[int]]:
    """Return token ids, 77 for each text; longer texts are truncated."""
    rows = build_tokenizer()(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True
    ).input_ids
    return [list(row) for row in rows]
