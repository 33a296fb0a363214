"""Models made larger: longer inputs, new words, words with vectors from elsewhere.

Pure functions of (config, params, ...) that give a new (config, params); what they are given stays
as it is.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from etils import epath

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.byte_bpe import SPACE
from bertjax.data.tokenizers.sentencepiece import WORD
from bertjax.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError, check

Params = Mapping[str, Any]
Positions = Literal["tile", "interpolate"]
NewRows = Literal["mean", "pieces"]

MOST_POSITIONS = 1 << 20  # attention over as many needs terabytes
WORDS = ("embeddings", "word", "embedding")
POSITIONS = ("embeddings", "position", "embedding")
BIAS = ("mlm", "bias")


def extend_positions(
    config: ModelConfig, params: Params, length: int, how: Positions = "tile"
) -> tuple[ModelConfig, Params]:
    """Positions for inputs of up to `length` ids, made of the learned ones.

    `tile` repeats the learned rows in order, as Longformer does (arXiv 2004.05150, section 5):
    inputs no longer than before give the same bits. `interpolate` stretches them, the first and the
    last staying first and last and the others linear between two neighbours, as ViT does for finer
    images (arXiv 2010.11929, section 3.2): every input changes. Rows below `config.position_offset`
    are no positions and stay as they are. Raises `UserError` where `length` is not above
    `config.max_length`.
    """
    check(
        how in get_args(Positions),
        where="positions",
        found=how,
        expected=" or ".join(get_args(Positions)),
    )
    check(
        length <= MOST_POSITIONS,
        where="length",
        found=str(length)[:20],
        expected=f"at most {MOST_POSITIONS}",
    )
    before, offset = config.max_length, config.position_offset
    check(
        length > before,
        where="length",
        found=length,
        expected=f"more than {before}, which the model's positions allow already",
    )
    table_PxE = _leaf(params, POSITIONS)
    learned_LxE = table_PxE[offset:]
    if how == "tile":
        rows = learned_LxE[np.arange(length) % before]
    else:
        # In integers, so that a place that falls on a learned row is that row to the bit.
        below, rest = np.divmod(np.arange(length) * (before - 1), length - 1)
        share = (rest / (length - 1)).astype(np.float32)[:, None]
        above = np.minimum(below + 1, before - 1)
        rows = learned_LxE[below] * (1 - share) + learned_LxE[above] * share
    grown = dataclasses.replace(config, max_position_embeddings=offset + length)
    return grown, _with(params, POSITIONS, np.concatenate([table_PxE[:offset], rows]))


def extend_vocabulary(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    pieces: Sequence[Sequence[int]],
    how: NewRows = "pieces",
    *,
    multiple: int = 1,
) -> tuple[ModelConfig, Params]:
    """Rows for new entries, whose ids follow those of `tokenizer`, the one from before.

    `pieces` holds for each new entry the ids that `tokenizer` gives for it; a row, and its bias in
    the masked-word head, is their mean (arXiv 2402.09977). With `mean` it is the mean over all
    entries but the special ones: then a new entry's score is the mean of theirs, so that in no
    place its probability is above one in their number (J. Hewitt, "Initializing New Word Embeddings
    for Pretrained Language Models", 2021).

    Rows that only fill the table up are used first; where they do not suffice the table grows, to a
    `multiple`, and rows that fill it up again are the mean. Rows of old entries keep their bits.
    Raises `UserError` for a table smaller than the tokenizer, and for an entry without pieces or
    with one that is no id of `tokenizer`.
    """
    check(
        how in get_args(NewRows),
        where="new rows",
        found=how,
        expected=" or ".join(get_args(NewRows)),
    )
    known = tokenizer.vocab_size
    check(multiple > 0, where="multiple", found=multiple, expected="a number above 0")
    check(
        known <= config.vocab_size,
        where="model.vocab_size",
        found=config.vocab_size,
        expected=f"at least the tokenizer's {known}",
    )
    for number, ids in enumerate(pieces, 1):
        good = len(ids) > 0 and min(ids) >= 0 and max(ids) < known
        check(
            good,
            where=f"new entry {number}",
            found=f"the pieces {list(ids)}",
            expected=f"one or more, each from 0 to {known - 1}",
        )
    used = known + len(pieces)
    size = config.vocab_size if used <= config.vocab_size else -(-used // multiple) * multiple
    ordinary = np.setdiff1d(np.arange(known), tokenizer.special_ids)

    def grown(old: np.ndarray) -> np.ndarray:
        mean = old[ordinary].mean(axis=0, dtype=np.float64)
        new = np.empty((size, *old.shape[1:]), np.float32)
        new[: len(old)] = old
        new[len(old) :] = mean
        for row, ids in enumerate(pieces, known):
            new[row] = mean if how == "mean" else old[list(ids)].mean(axis=0, dtype=np.float64)
        return new

    for name in (WORDS, BIAS) if "mlm" in config.heads else (WORDS,):
        params = _with(params, name, grown(_leaf(params, name)))
    return dataclasses.replace(config, vocab_size=size), params


def init_word_vectors(
    config: ModelConfig, params: Params, words: Mapping[str, int], vectors: Mapping[str, np.ndarray]
) -> tuple[ModelConfig, Params, int]:
    """The rows of those of `words` (ids by word) that have a vector become it; also how many these
    are.

    All vectors are scaled by one number, after which their standard deviation is that of the rows
    of `words` now: `initializer_range`, less what its cut takes off, in a model not yet trained. As
    they come, GloVe's spread much wider and drown the positions that are added to them: models that
    start so do worse than from random rows, and gain by a narrow range (arXiv 2407.12514). Angles
    stay. Raises `UserError` where a vector is not `config.embedding_width` wide or not finite, and
    where there is no vector for any of `words` or all are 0.
    """
    width = config.embedding_width
    found = [word for word in words if word in vectors]
    check(
        found, where="word vectors", found=f"none of {len(words):,} words", expected="one or more"
    )
    for word in found:
        shape = np.shape(vectors[word])
        wanted = f"[{width}], as model.{'embedding_size' if config.embedding_size else 'hidden_size'} says"
        check(
            shape == (width,),
            where=f"the vector of {word!r}",
            found=f"shape {list(shape)}",
            expected=wanted,
        )
    rows = np.stack([vectors[word] for word in found]).astype(np.float64)
    spread = rows.std()
    check(
        bool(np.isfinite(spread)) and spread > 0,
        where="word vectors",
        found=f"a deviation of {spread}",
        expected="a number above 0",
    )
    table_VxE = _leaf(params, WORDS).copy()
    scale = table_VxE[list(words.values())].std(dtype=np.float64) / spread
    table_VxE[[words[word] for word in found]] = rows * scale
    return config, _with(params, WORDS, table_VxE), len(found)


def whole_words(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of the entries that are a word's beginning, by the word without its mark: WordPiece's
    `cat`, SentencePiece's `▁cat`, byte-level BPE's `Ġcat` (which writes letters beyond ASCII as
    bytes: not found).
    """
    begins = np.flatnonzero(tokenizer.starts_word)
    words = [
        entry.removeprefix(WORD).removeprefix(SPACE) for entry in tokenizer.pieces(begins.tolist())
    ]
    return {word: int(i) for word, i in zip(words, begins, strict=True) if word}


def pieces_of(tokenizer: Tokenizer, words: Sequence[str]) -> list[list[int]]:
    """The ids of each word."""
    ids, offsets = tokenizer.encode_batch(words)
    return [ids[begin:end].tolist() for begin, end in pairwise(offsets)]


def read_new_words(path: epath.PathLike) -> list[str]:
    """The lines of a UTF-8 file, a word each; `UserError` where it cannot be read or is empty."""
    try:
        text = epath.Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of words ({error})") from error
    check(text.strip(), where=str(path), found="no word", expected="one a line")
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]


def extend_tokenizer(folder: epath.PathLike, words: Sequence[str], source: str) -> Tokenizer:
    """The WordPiece tokenizer saved in `folder` with `words` as further entries, ids following the
    old ones.

    A longest match is taken first: where a longer word begins with a new one, its pieces change
    too. The ids of all other text stay.

    Raises `UserError`, naming `source` and the line, for a word that is empty, has a space, is
    known already, or would never come out of text: "covid-19" is three words to BERT, and an
    uncased tokenizer reads no capitals. One such line stops it, for a row that nothing uses costs
    memory and says nothing.
    """
    folder = epath.Path(folder)
    old = load_tokenizer(folder)
    check(
        old.kind == "wordpiece",
        where=str(folder),
        found=f"a tokenizer of kind {old.kind}, which takes no new entries",
        expected="wordpiece",
    )
    lines = dict.fromkeys(old.pieces(range(old.vocab_size)), "in the vocabulary")
    for number, word in enumerate(words, 1):
        where = f"{source}, line {number}"
        check(
            word != "" and not any(c.isspace() for c in word),
            where=where,
            found=repr(word),
            expected="a word without spaces",
        )
        check(
            word not in lines,
            where=where,
            found=f"{word!r}, which is {lines.get(word)} already",
            expected="a new word",
        )
        lines[word] = f"on line {number}"
    entries = [*old.pieces(range(old.vocab_size)), *words]
    content = "".join(f"{entry}\n" for entry in entries).encode()
    new = WordPiece(folder, content, old.lowercase)
    wrong = [i for i, ids in enumerate(pieces_of(new, words)) if ids != [old.vocab_size + i]]
    if wrong:
        word = words[wrong[0]]
        read = " ".join(new.pieces(pieces_of(new, [word])[0]))
        others = f" ({len(wrong)} lines like it)" if len(wrong) > 1 else ""
        expected = "a word that BERT does not split, in lower case and without accents where the tokenizer is uncased"
        raise UserError(
            f"{source}, line {wrong[0] + 1}: found {word!r}, read as {read!r}{others}, expected {expected}"
        )
    return new


def _leaf(params: Params, name: Sequence[str]) -> np.ndarray:
    tree: Any = params
    for key in name:
        tree = tree[key]
    return np.asarray(tree)


def _with(tree: Params, name: Sequence[str], leaf: np.ndarray) -> dict[str, Any]:
    """`tree` with another leaf, sharing the rest with it."""
    first, *rest = name
    return {**tree, first: _with(tree[first], rest, leaf) if rest else jnp.asarray(leaf)}
