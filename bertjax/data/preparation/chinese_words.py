"""Where Chinese words begin, by the package jieba."""

import logging
import re
from collections.abc import Sequence

import numpy as np

from bertjax.data.preparation.documents import CONTINUES
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError

_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")


def mark_words(
    sentences: Sequence[str], tokens: np.ndarray, offsets: np.ndarray, tokenizer: Tokenizer
) -> np.ndarray:
    """`tokens` with `CONTINUES` added to those that begin at an ideograph inside of a word."""
    jieba = _jieba()
    marked = tokens.copy()
    chinese = [number for number, sentence in enumerate(sentences) if _IDEOGRAPH.search(sentence)]
    for number, begins in zip(
        chinese, tokenizer.encode_begins([sentences[i] for i in chinese]), strict=True
    ):
        sentence = sentences[number]
        starts = {begin for _, begin, _ in jieba.tokenize(sentence)}
        inside = [at not in starts and bool(_IDEOGRAPH.match(sentence, at)) for at in begins]
        marked[offsets[number] : offsets[number + 1]] += np.array(inside, np.int32) * np.int32(
            CONTINUES
        )
    return marked


def _jieba():  # type: ignore[no-untyped-def]
    try:
        import jieba
    except ImportError as error:
        raise UserError(
            "data.word_segmenter: found no package jieba, expected it: pip install jieba (or none here)"
        ) from error
    jieba.setLogLevel(logging.WARNING)
    return jieba
