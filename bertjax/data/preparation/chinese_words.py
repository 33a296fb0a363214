"""Segmentation of Chinese text into words by the package jieba."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertjax.data.preparation.documents import CONTINUES
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError

# About the blocks of `_is_chinese_char` in the original's tokenization.py; from U+20000 on they are
# one range here.
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")


def mark_words(
    sentences: Sequence[str], tokens: np.ndarray, offsets: np.ndarray, tokenizer: Tokenizer
) -> np.ndarray:
    """Add `CONTINUES` to each token that starts with an ideograph inside a word; int32 `[T]`.

    Without this mark, the tokenizers treat each ideograph as a word. Sentence `s` has the tokens
    `tokens[offsets[s]:offsets[s + 1]]`. Raises `UserError` if jieba is not installed.
    """
    jieba = _jieba()
    marked = tokens.copy()
    # jieba is slow, so it does not get sentences without ideographs.
    chinese = [number for number, text in enumerate(sentences) if _IDEOGRAPH.search(text)]
    token_begins = tokenizer.encode_begins([sentences[number] for number in chinese])
    for number, begins in zip(chinese, token_begins, strict=True):
        sentence = sentences[number]
        word_begins = {begin for _, begin, _ in jieba.tokenize(sentence)}
        # Only ideographs: jieba divides Latin text too, in which the tokenizer knows the words.
        inside = [
            begin not in word_begins and bool(_IDEOGRAPH.match(sentence, begin)) for begin in begins
        ]
        marks = np.array(inside, np.int32) * np.int32(CONTINUES)
        marked[offsets[number] : offsets[number + 1]] += marks
    return marked


def _jieba() -> Any:
    try:
        import jieba
    except ImportError as error:
        raise UserError(
            "data.word_segmenter: found no package jieba, expected it: "
            "pip install jieba (or none here)"
        ) from error
    # It reports on stderr how it loads its dictionary.
    jieba.setLogLevel(logging.WARNING)
    return jieba
