"""Files of rated pairs of sentences: `SCORE TAB A TAB B`, as SemEval's STS has them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from bertjax.data.row_layout import Texts
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, mismatch
from bertjax.given_files import read_file


class RatedPair(NamedTuple):
    """Two sentences and how similar people found them."""

    score: float
    first: str
    second: str


def read_pairs(path: epath.Path) -> tuple[RatedPair, ...]:
    """Read the rated pairs of a file; a pair whose score is empty is unrated and left out.

    Raises `UserError`, naming the line, for one that is not as expected, and if the file has fewer
    than two different scores, between which nothing could be ordered.
    """
    content = read_file(path, "a file of rated pairs")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise mismatch(
            where=f"{path}:{number}", found="bytes that are no UTF-8", expected="UTF-8"
        ) from error
    pairs = []
    # Not splitlines: a sentence may have other characters that Python takes for the end of a line.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        columns = line.removesuffix("\r").split("\t")
        check(
            len(columns) == 3,
            where=f"{path}:{number}",
            found=f"{len(columns)} columns",
            expected="3: score, sentence, sentence (separated by tabs)",
        )
        score, first, second = columns
        if score.strip():
            pairs.append(RatedPair(_score(score, f"{path}:{number}"), first, second))
    scores = {pair.score for pair in pairs}
    check(
        len(scores) > 1,
        where=str(path),
        found=f"{len(pairs)} rated pairs with {len(scores)} different scores",
        expected="two different scores or more",
    )
    return tuple(pairs)


def _score(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    check(math.isfinite(score), where=where, found=f"the score {text[:40]!r}", expected="a number")
    return score


def text_rows(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
    """Return the ids of each text with its special tokens, cut to `max_length` ids."""
    layout = tokenizer.layout
    ids, begins = tokenizer.encode_batch(texts)
    lengths = np.minimum(np.diff(begins), max_length - layout.single_specials)
    rows = layout.rows(Texts(ids, begins[:-1], lengths))
    return np.split(rows.ids, rows.offsets[1:-1])
