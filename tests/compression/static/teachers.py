"""Small teachers of tables: a run folder with a model of random numbers, and its tokenizer."""

import dataclasses

import jax

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.tokenizer import train_tokenizer
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.model import functional
from bertjax.training.saved_model import save_model
from tests.factory import SMALL_MODEL, small_config

WORDS = ["the", "cat", "dog", "sees", "##s", "no", "one", ".", "good", "bad", "bird", "fish"]
VOCABULARY = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", *WORDS]
MEANT = [VOCABULARY.index(word) for word in WORDS]
MODEL = dataclasses.replace(SMALL_MODEL, initializer_range=0.2, heads=())
TEXTS = ["the cat sees the dogs.", "", "unheard", "no one, good or bad!", "[CLS] fish " * 9]


def wordpiece(entries=VOCABULARY):
    return WordPiece("vocab.txt", "".join(f"{e}\n" for e in entries).encode(), lowercase=True)


def byte_bpe():
    """A tokenizer in which a letter that is not ASCII has several pieces."""
    config = TokenizerConfig(kind="byte_bpe", vocab_size=280, lowercase=False)
    return train_tokenizer(config, ["the cat sees the dogs.", "Straße, naïve café, 今天天气"] * 4)


def save_teacher(folder, tokenizer, facts=None, scale=1.0, **fields):
    """Save a run of a small model, its parameters times `scale`; return its folder."""
    model = dataclasses.replace(MODEL, **{"vocab_size": max(tokenizer.vocab_size, 64)} | fields)
    params = functional.init(model, jax.random.key(3))
    params = jax.tree.map(lambda leaf: leaf * scale, params)
    save_model(folder, small_config(model=model), params, tokenizer, facts or {})
    return folder
