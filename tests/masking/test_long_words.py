import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import DataConfig, TokenizerConfig
from bertjax.data.tokenizers.tokenizer import mask_vocabulary, train_tokenizer
from bertjax.masking.long_words import MAX_WORD_PIECES, divide_long_words
from bertjax.masking.selection import Vocabulary, is_special
from bertjax.masking.static import mask_rows

LIMITED = Vocabulary(4, (0, 1, 2, 3, 4), 10, max_word_pieces=3)
# Ids 0 to 4 are special, 5 to 7 begin a word, 8 and 9 continue one.
STARTS = np.array([False] * 5 + [True] * 3 + [False] * 2)


def starts_one_by_one(row, limit):
    """Where words begin in a list of ids, by a loop over its words."""
    words, word = [], []
    for position, token in enumerate(row):
        if word and (STARTS[token] or token < 5 or row[position - 1] < 5):
            words.append(word)
            word = []
        word.append(position)
    words.append(word)
    starts = [bool(STARTS[token]) for token in row]
    for word in words:
        if len(word) > limit:
            for position in word:
                starts[position] = True
    return starts


@given(st.lists(st.lists(st.integers(0, 9), min_size=12, max_size=12), min_size=1, max_size=4))
def test_words_of_more_pieces_than_the_limit_are_their_pieces(rows):
    ids = np.array(rows, np.int32)
    divided = divide_long_words(STARTS[ids], ids, LIMITED)
    assert divided.tolist() == [starts_one_by_one(row, 3) for row in rows]
    # Recorded word starts may be divided again.
    assert np.array_equal(divide_long_words(divided, ids, LIMITED), divided)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_without_a_limit_nothing_changes(row):
    ids = np.array([row], np.int32)
    unlimited = LIMITED._replace(max_word_pieces=0)
    assert np.array_equal(divide_long_words(STARTS[ids], ids, unlimited), STARTS[ids])


def syllables(first, last, marks=(), count=40):
    """Syllables of a script: a letter of the range, and sometimes one of its marks."""
    rng = random.Random(first)
    letters = [chr(code) for code in range(first, last + 1)]
    drawn = []
    for _ in range(count):
        mark = chr(rng.choice(marks)) if marks and rng.random() < 0.5 else ""
        drawn.append(rng.choice(letters) + mark + rng.choice(letters))
    return drawn


SYLLABLES = {
    "thai": syllables(0x0E01, 0x0E2E, (0x0E34, 0x0E35, 0x0E48)),
    "lao": syllables(0x0EA5, 0x0EB0, (0x0EB4, 0x0EC8)),
    "khmer": syllables(0x1780, 0x17A2, (0x17B6, 0x17B7, 0x17D2)),
    "burmese": syllables(0x1000, 0x1020, (0x102D, 0x1031)),
    "tibetan": syllables(0x0F40, 0x0F47, (0x0F72, 0x0F74)),
    "kana": syllables(0x30A2, 0x30ED),
    "dna": [first + second for first in "ACGT" for second in "ACGT"],
    "hashes": [f"{number:02x}" for number in range(256)],
}


def clauses(script, syllables_in_a_clause=30):
    """Sentences of clauses without spaces; each clause has a hundred characters at most."""
    rng = random.Random(script)
    sentences = []
    for _ in range(120):
        parts = []
        for _ in range(4):
            parts.append("".join(rng.choices(SYLLABLES[script], k=syllables_in_a_clause)))
        sentences.append(" ".join(parts))
    return sentences


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe", "byte_bpe"])
@pytest.mark.parametrize("script", SYLLABLES)
def test_the_masked_share_is_as_asked_for_in_text_without_spaces(script, kind):
    texts = clauses(script)
    config = TokenizerConfig(
        kind=kind, vocab_size=400, lowercase=kind != "byte_bpe", strip_accents=False
    )
    tokenizer = train_tokenizer(config, texts)
    ids, _ = tokenizer.encode_batch(texts)
    assert (ids != tokenizer.unk_id).mean() > 0.9
    rows = ids[: len(ids) // 126 * 126].reshape(-1, 126)
    rows = np.pad(rows, [(0, 0), (1, 1)], constant_values=tokenizer.sep_id).astype(np.int32)
    vocabulary = mask_vocabulary(tokenizer)
    starts = divide_long_words(tokenizer.starts_word[rows], rows, vocabulary)
    batch = {"input_ids": rows, "input_mask": np.ones_like(rows), "word_starts": starts}
    config = DataConfig(masking="whole_word", mlm_probability=0.15)
    masked = mask_rows(batch, config, vocabulary, np.random.default_rng(0))
    share = masked["masked_lm_weights"].sum() / (~is_special(rows, vocabulary)).sum()
    # The number of tokens is rounded: 15 % of 126 are 18.9.
    assert share == pytest.approx(0.15, abs=0.005)


def test_words_with_spaces_are_whole_up_to_the_limit():
    texts = ["unbelievable tokenizers divide internationalization"] * 3 + ["a b c d e"] * 3
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=60), texts)
    ids, _ = tokenizer.encode_batch(["unbelievable"])
    assert 1 < len(ids) <= MAX_WORD_PIECES
    row = np.array([[tokenizer.cls_id, *ids, tokenizer.sep_id]], np.int32)
    starts = divide_long_words(tokenizer.starts_word[row], row, mask_vocabulary(tokenizer))
    assert starts.sum() == 1
