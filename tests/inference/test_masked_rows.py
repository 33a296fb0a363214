"""Rows with masked words: the same words and bytes for every tokenizer, and nothing lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.tokenizer import train_tokenizer
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.inference.held_out_words import masked_words, word_spans
from bertjax.inference.masked_rows import masked_text

TEXT = ["The cat sees the other cat's dog.", "It's a größere dog, 我爱你 and カメラ, ที่ดี."] * 20
KINDS = ("wordpiece", "unigram", "bpe", "byte_bpe")
SIZES = {"wordpiece": 150, "unigram": 60, "bpe": 90, "byte_bpe": 320}


@pytest.fixture(scope="module")
def tokenizers():
    return {
        kind: train_tokenizer(
            TokenizerConfig(kind=kind, vocab_size=SIZES[kind], lowercase=False), TEXT
        )
        for kind in KINDS
    }


def test_every_tokenizer_has_the_same_words_and_bytes(tokenizers):
    text = "The dog's other cat sees größere dogs.\nThe cat sees it, and the dog sees the cat."
    spans = word_spans(text)
    chosen = spans[masked_words(text, len(spans))]
    expected = sum(len(text[begin:end].encode()) for begin, end in chosen)
    found = {kind: masked_text(own, text, 64) for kind, own in tokenizers.items()}
    assert {own.words for own in found.values()} == {len(chosen)}
    assert {own.bytes for own in found.values()} == {expected}
    for kind, own in found.items():
        tokenizer = tokenizers[kind]
        (row,) = own.rows
        shown = tokenizer.decode(row.ids[row.positions])
        words = [text[begin:end] for begin, end in chosen]
        if not own.unspelled_bytes:
            assert "".join(shown.split()) == "".join("".join(words).split()), kind


TEXTS = st.text(
    st.sampled_from("abceghiorst .,'\n\t\u00a0我爱你カメラทีดहूँ😀é\u0301\u200b\x07\ufeff𠀀[]"),
    max_size=90,
)


@given(text=TEXTS, kind=st.sampled_from(KINDS), longest=st.integers(4, 40))
def test_rows_have_all_pieces_in_order_and_count_what_they_mask(tokenizers, text, kind, longest):
    tokenizer = tokenizers[kind]
    masked = masked_text(tokenizer, text, longest)
    before, after = len(tokenizer.layout.before), len(tokenizer.layout.after)
    inner = [row.ids[before : len(row.ids) - after] for row in masked.rows]
    ids, _ = tokenizer.encode_batch(text.split("\n"))
    np.testing.assert_array_equal(np.concatenate([np.zeros(0, np.int32), *inner]), ids)
    assert all(len(row.ids) <= longest for row in masked.rows)
    for row in masked.rows:
        assert (np.diff(row.positions) > 0).all()
        assert all(before <= p < len(row.ids) - after for p in row.positions)
    assert masked.pieces == sum(len(row.positions) for row in masked.rows)
    spans = word_spans(text)
    chosen = spans[masked_words(text, len(spans))]
    least = sum(len(text[begin:end].encode()) for begin, end in chosen)
    assert least <= masked.bytes <= len("".join(text.split()).encode())
    assert 0 <= masked.unspelled_bytes <= masked.bytes
    if masked.bytes > masked.unspelled_bytes:
        assert masked.pieces


def test_a_word_without_pieces_counts_as_unspelled():
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat"]
    tokenizer = WordPiece("v.txt", "\n".join([*entries, ""]).encode(), lowercase=True)
    known, unknown = masked_text(tokenizer, "cat", 8), masked_text(tokenizer, "猫猫猫", 8)
    assert (known.bytes, known.unspelled_bytes, known.pieces) == (3, 0, 1)
    assert (unknown.bytes, unknown.unspelled_bytes, unknown.pieces) == (3, 3, 1)
    # Control characters become no piece at all.
    dropped = masked_text(tokenizer, "\x07\x07", 8)
    assert (dropped.bytes, dropped.unspelled_bytes, dropped.pieces) == (2, 2, 0)
    assert dropped.rows == []


@pytest.mark.parametrize("text", ["", "\n", " \n\t"])
def test_an_empty_text_has_no_rows(tokenizers, text):
    for tokenizer in tokenizers.values():
        masked = masked_text(tokenizer, text, 8)
        assert (masked.bytes, masked.words, masked.pieces) == (0, 0, 0)
        assert sum(len(row.positions) for row in masked.rows) == 0


def test_a_row_begins_at_a_word_unless_a_word_is_longer_than_a_row(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    text = "the other cat sees the dog and the other dog"
    masked = masked_text(tokenizer, text, 7)
    assert len(masked.rows) > 1
    assert all(tokenizer.starts_word[row.ids[1]] for row in masked.rows)
    long = masked_text(tokenizer, "thecatseesthedog" * 2, 7)
    assert all(len(row.ids) == 7 for row in long.rows[:-1])
    assert long.pieces == sum(len(row.ids) - 2 for row in long.rows)


def test_characters_that_share_a_piece_are_masked_together():
    """A piece of several Chinese characters is one prediction, of all of its bytes."""
    tokenizer = train_tokenizer(
        TokenizerConfig(kind="unigram", vocab_size=20), ["机器学习 机器学习 机器 学习"] * 50
    )
    masked = masked_text(tokenizer, "机器学习", 16)
    assert masked.words == 1
    assert masked.pieces <= 2
    assert masked.bytes in (6, 12)
