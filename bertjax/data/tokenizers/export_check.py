"""Comparison of a saved tokenizer with what other programs read from its folder."""

import importlib.metadata
import importlib.util
import logging
import random
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.sentencepiece import SentencePiece
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.data.tokenizers.vocabulary import CONTINUES, ENGINE_FILE, MASK, ROLES, SETTINGS_FILE
from bertjax.errors import UserError, check, mismatch, one_line
from bertjax.storage import read_json

TEXTS = 400
SEED = 0
MASKED = 10  # of those with each kind of space around a mask
MAX_PARTS = 10  # of a text
# Code points from which characters are drawn. ASCII counts three times: most pieces are of it.
BLOCKS = (
    *[(0x20, 0x7F)] * 3, (0x00, 0x20), (0x7F, 0x250), (0x300, 0x370), (0x370, 0x530),
    (0x5D0, 0x700), (0x900, 0xE00), (0xE00, 0x1200), (0x1E00, 0x2070), (0x2070, 0x2C00),
    (0x3000, 0x3400), (0x4E00, 0x9FA6), (0xAC00, 0xD7A4), (0xF900, 0xFE10), (0xFE20, 0xFFFE),
    (0x1D400, 0x1D800), (0x1F300, 0x1F700),
)  # fmt: skip
# Text that programs read in different ways: marks in any order, joined characters, spaces.
HARD = (
    "", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "e\u0301", "E\u0301", "e\u0302\u0323",
    "o\u0323\u0301", "\u0130", "I\u0307", "\u00df", "\ufb01", "\u03a3", "\u1112\u1161\u11ab",
    "\u304b\u3099", "\u0939\u093f\u0928\u094d\u0926\u0940", "\U0001f469\u200d\U0001f467", "...",
    "1,000", "don't", "a_b", "\x07", "\u200b", "\ufeff", "\u2581",
)  # fmt: skip

log = logging.getLogger("bertjax")


class Reader(NamedTuple):
    """Another program that reads the folder."""

    name: str
    encode: Callable[[Sequence[str]], list[list[int]]]
    """Ids of texts, without special tokens around them; text that spells one becomes it."""
    roles: list[int | None] | None
    """Ids of the special tokens in the order of `ROLES`, None for a role without one; None in place
    of the list: the program knows none."""


def check_export(
    tokenizer: Tokenizer,
    where: object,
    with_transformers: bool = True,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Raise `UserError` where other programs would read other ids from the tokenizer's folder.

    `TEXTS` texts are drawn from the vocabulary and from Unicode, the same in each call. They are
    read as `AutoTokenizer` of `transformers` reads them, where this is installed and
    `with_transformers`, which takes seconds to import; else by the package `tokenizers`. `where`
    names the tokenizer in the error. `files` are others of the folder by name: a model's
    configuration may decide which class `AutoTokenizer` takes.
    """
    if isinstance(tokenizer, SentencePiece):
        problem = tokenizer.export_problem()
        check(
            problem is None,
            where=str(where),
            found=f"a SentencePiece model of {problem}, which no {ENGINE_FILE} can express",
            expected="one that gives the same ids in other programs",
        )
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        for name, content in (files or {}).items():
            (Path(folder) / name).write_bytes(content)
        reader = _transformers(folder) if with_transformers else None
        reader = reader or _tokenizers(folder)
        spelt = read_json(Path(folder) / SETTINGS_FILE)
    names = tokenizer.pieces([i for i in _role_ids(tokenizer) if i is not None])
    check(
        reader.roles in (None, _role_ids(tokenizer)),
        where=str(where),
        found=f"the ids {reader.roles} of the special tokens in {reader.name}",
        expected=f"{_role_ids(tokenizer)}, those of {' '.join(names)}",
    )
    _check_texts(tokenizer, reader, where, _mask_name(spelt))


def _check_texts(tokenizer: Tokenizer, reader: Reader, where: object, mask: str) -> None:
    texts = list(drawn_texts(tokenizer))
    ids, offsets = tokenizer.encode_batch(texts)
    expected = [ids[a:b].tolist() for a, b in pairwise(offsets)]
    # A mask between two texts each: with the space before or after it, with none, and with both.
    gaps = [("", ""), (" ", ""), ("", " "), (" ", " ")]
    masked = []
    for (before, after), (left, right) in zip(pairwise(texts), gaps * MASKED, strict=False):
        masked.append(f"{before}{left}{MASK}{right}{after}")
    expected += [tokenizer.encode_with_masks(text).tolist() for text in masked]
    texts += [text.replace(MASK, mask) for text in masked]
    for text, ours, theirs in zip(texts, expected, reader.encode(texts), strict=True):
        if not _same(tokenizer, ours, theirs):
            raise mismatch(
                where=str(where),
                found=f"the ids {_shown(theirs)} of the text {text!a} in {reader.name}",
                expected=f"{_shown(ours)}, as here",
            )


def drawn_texts(tokenizer: Tokenizer, count: int = TEXTS) -> Iterator[str]:
    """Yield texts of pieces, hard cases and any characters; none that spells a special token.

    Where a SentencePiece model has symbols of the user, or a folder has registered tokens, one text
    in five is of them alone.
    """
    symbol_ids = tokenizer.symbol_ids() if isinstance(tokenizer, SentencePiece) else []
    symbols = tokenizer.pieces(symbol_ids)
    symbols += [token.content for token in tokenizer.registered]
    # Pieces that no text becomes: other programs make them of text that spells them.
    special = tokenizer.pieces(tokenizer.special_ids.tolist())
    chosen = random.Random(SEED)
    drawn = 0
    while drawn < count:
        count_of_parts = chosen.randrange(MAX_PARTS)
        if symbols and drawn % 5 == 0:
            text = "".join(chosen.choices(symbols, k=count_of_parts))
        else:
            parts = [_part(tokenizer, chosen) for _ in range(count_of_parts)]
            text = "".join(part + chosen.choice(("", " ")) for part in parts)
        if not _spells(text, special):
            yield text
            drawn += 1


def _part(tokenizer: Tokenizer, chosen: random.Random) -> str:
    kind = chosen.random()
    if kind < 0.6:
        piece = tokenizer.decode([chosen.randrange(tokenizer.vocab_size)])
        piece = piece.removeprefix(CONTINUES)
        return chosen.choice((piece, piece.upper(), piece.title()))
    if kind < 0.75:
        return chosen.choice(HARD)
    first, end = chosen.choice(BLOCKS)
    drawn = [chr(chosen.randrange(first, end)) for _ in range(chosen.randint(1, 4))]
    # Programs have Unicode of different versions, and this is known to all of them.
    return "".join(c for c in drawn if unicodedata.category(c) not in ("Cn", "Co", "Cs"))


def _spells(text: str, special: Sequence[str]) -> bool:
    # Unigram in `tokenizers` sees them in text that was lower-cased or composed, too.
    read = (text, text.lower(), unicodedata.normalize("NFKC", text))
    return any(name in form or name.lower() in form for name in special for form in read)


def _same(tokenizer: Tokenizer, ours: list[int], theirs: list[int]) -> bool:
    """True for equal ids, and for the same pieces of an opened unigram model in another order.

    Their scores are equal then. SentencePiece adds them in float32, other programs in float64, and
    the last digit decides, unless the scores are those of a model that was trained here.
    """
    if ours == theirs or not isinstance(tokenizer, SentencePiece) or tokenizer.has_exact_scores():
        return ours == theirs
    moved = {i for pair in zip(ours, theirs, strict=False) for i in pair if pair[0] != pair[1]}
    return sorted(ours) == sorted(theirs) and moved.isdisjoint(tokenizer.symbol_ids())


def _role_ids(tokenizer: Tokenizer) -> list[int | None]:
    return [getattr(tokenizer, f"{role}_id") for role in ROLES]


def _mask_name(settings: dict[str, Any]) -> str:
    name = settings["mask_token"]
    return str(name["content"] if isinstance(name, dict) else name)


def _shown(ids: Sequence[int]) -> str:
    return one_line(ids, limit=80)


def _tokenizers(folder: str) -> Reader:
    engine = Engine.from_file(str(Path(folder) / ENGINE_FILE))

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in engine.encode_batch(list(texts), add_special_tokens=False)]

    return Reader(f"tokenizers {importlib.metadata.version('tokenizers')}", encode, None)


def _transformers(folder: str) -> Reader | None:
    """`AutoTokenizer` of the folder; None where `transformers` is not installed."""
    if importlib.util.find_spec("transformers") is None:
        return None
    try:
        from transformers import AutoTokenizer
    # It imports other packages where they are installed, and any of them may fail in its own way.
    except Exception as error:
        log.warning("transformers: cannot be imported, so not compared (%s)", one_line(error))
        return None
    version = f"transformers {importlib.metadata.version('transformers')}"
    try:
        theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # Its classes raise any error on a folder that they do not expect.
    except Exception as error:
        raise UserError(f"{version}: cannot read the tokenizer ({one_line(error)})") from error
    roles = [getattr(theirs, f"{role}_token_id") for role in ROLES]

    def encode(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = theirs(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    return Reader(version, encode, roles)
