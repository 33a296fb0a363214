from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.byte_bpe import ByteBPE
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.losses import LeftOut, Losses, loses_mark, unread_characters
from bertjax.data.tokenizers.tokenizer import open_vocabulary, train_tokenizer
from bertjax.data.tokenizers.vocabulary import ROBERTA_TOKENS, SPECIAL_TOKENS
from bertjax.errors import UserError
from tests.data.tokenizers.declared.makers import LEAVING_OUT

ENTRIES = ["the", "cat", "##s", "c", "##a", "##t", "今", "म", "े", "ं"]


@pytest.fixture
def open_entries(tmp_path):
    """Return a function that opens a WordPiece vocabulary of `ENTRIES` with some settings."""
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{entry}\n" for entry in [*SPECIAL_TOKENS, *ENTRIES]))
    return lambda **options: open_vocabulary(TokenizerConfig(vocab_file=str(path), **options))


def losses_of(tokenizer, *texts):
    tokens, offsets, losses = tokenizer.encode_counted(texts)
    ids, expected = tokenizer.encode_batch(texts)
    assert tokens.tolist() == ids.tolist()
    assert offsets.tolist() == expected.tolist()
    return losses


@pytest.mark.parametrize("text,unknown,stripped", [
    ("the cats", 0, 0),
    ("", 0, 0),
    ("the dog", 3, 0),  # a word of the cat, and one of three letters that is unknown
    ("dogs dogs", 8, 0),
    ("the\tdog", 3, 0),
    ("the (cat)", 2, 0),  # two words of punctuation
    ("今天", 1, 0),
    ("câts", 0, 1),
    ("chât", 4, 1),
    ("x" * 101, 101, 0),
    ("cat\u00a0dog", 3, 0),
])  # fmt: skip
def test_wordpiece_loses_the_characters_of_the_words_that_it_does_not_know(
    open_entries, text, unknown, stripped
):
    assert losses_of(open_entries(), text) == Losses(unknown, stripped)


def test_losses_are_those_of_all_texts_also_where_a_word_was_seen_before(open_entries):
    tokenizer = open_entries()
    for _ in range(2):
        assert losses_of(tokenizer, "the dog", "", "cat", "dog dog") == Losses(9, 0)


def test_marks_are_counted_only_where_they_are_stripped(open_entries):
    hindi = "\u092e\u0947\u0902"  # mein, "in": a letter and two marks
    assert losses_of(open_entries(), hindi) == Losses(0, 2)
    assert losses_of(open_entries(strip_accents=True, lowercase=False), hindi) == Losses(0, 2)
    kept = losses_of(open_entries(strip_accents=False), hindi)
    assert kept.stripped == 0


def test_a_mark_is_what_bert_strips():
    assert [loses_mark(c) for c in "éガ\u0947ệ"] == [True] * 4
    # A spacing mark of Hindi, Korean, German's ß, Swedish o with a stroke.
    assert [loses_mark(c) for c in "e\u093e한ßø"] == [False] * 5


@given(st.lists(st.sampled_from(["return", "the", "list", "天", "☃", "☃☃", " ", "a"]), max_size=8))
def test_sentencepiece_loses_the_characters_that_have_no_piece(parts):
    tokenizer = UNIGRAM
    text = "".join(parts)
    assert losses_of(tokenizer, text, "") == Losses(text.count("☃") + text.count("天"), 0)


UNIGRAM = train_tokenizer(
    TokenizerConfig(kind="unigram", vocab_size=60), ["return the list", "a list of the names"] * 20
)


def test_sentencepiece_counts_the_marks_that_it_strips():
    config = TokenizerConfig(kind="bpe", vocab_size=60, strip_accents=True)
    tokenizer = train_tokenizer(config, ["cafe au lait", "une tasse de the"] * 20)
    assert losses_of(tokenizer, "café au thé ☃") == Losses(1, 2)


def test_byte_level_bpe_loses_the_characters_whose_bytes_its_vocabulary_lacks():
    pieces = [*ROBERTA_TOKENS, "a", "b", "Ġ"]
    tokenizer = ByteBPE("vocab.json", {piece: i for i, piece in enumerate(pieces)}, [])
    assert losses_of(tokenizer, "a b", "aéc b") == Losses(2, 0)
    whole = train_tokenizer(
        TokenizerConfig(kind="byte_bpe", vocab_size=300, lowercase=False), ["a b"] * 3
    )
    assert losses_of(whole, "aéc ☃") == Losses(0, 0)


@cache
def leaving_out(make):
    with TemporaryDirectory() as folder:
        return read_tokenizer_folder(make(Path(folder)))


@pytest.mark.parametrize("make", LEAVING_OUT, ids=lambda make: make.__name__)
@given(st.lists(st.sampled_from(["the", "dog", "x", " ", "\n", "\u00a0", "ж", "é", "日"])))
def test_a_token_begins_and_ends_at_letters_of_its_own(make, parts):
    tokenizer, text = leaving_out(make), "".join(parts)
    pieces = tokenizer.pieces(tokenizer.encode_batch([text])[0])
    (begins,) = tokenizer.encode_begins([text])
    unread = tokenizer.unread([text])
    assert begins == sorted(begins)
    letters = []
    for piece, begin in zip(pieces, begins, strict=True):
        letter = piece.strip("\u2581Ġ")[:1]
        # RoBERTa's engine keeps the space before a text's first word in its token.
        assert text[begin:].lstrip().startswith(letter)
        letters += [letter]
    # Each letter that begins no token is in one, and what stands at a text's end is in none.
    assert not any(unread[place] for place, c in enumerate(text) if c.isascii() and c.isalpha())
    if "".join(letters):
        last = max(place for place, c in enumerate(text) if c.isascii() and c.isalpha())
        assert all(unread[place] for place, c in enumerate(text) if place > last and c in "жé日")


def small_bpe(entries, merges, **options):
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    return Engine(models.BPE(vocabulary, merges, **options))


def test_places_are_known_with_marks_of_pieces_that_continue_or_end_a_word():
    continuing = small_bpe(
        ["a", "##b", "##c", "##bc"], [("##b", "##c")], continuing_subword_prefix="##"
    )
    ending = small_bpe(["a", "b", "c</w>", "bc</w>"], [("b", "c</w>")], end_of_word_suffix="</w>")
    for engine in (continuing, ending):
        encoding = engine.encode("a☃b☃c")
        assert LeftOut("x", engine).spans("a☃b☃c", encoding) == [(0, 1), (2, 5)]


def test_a_whole_word_is_one_token_whatever_its_letters_are():
    engine = small_bpe(["▁", "a", "▁a☃"], [], ignore_merges=True)
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    text = "☃a a☃ a"
    spans = LeftOut("x", engine).spans(text, engine.encode(text))
    assert spans[1:] == [(1, 2), (2, 5), (5, 6), (6, 7)]


def test_text_whose_places_cannot_be_known_is_refused_in_one_line():
    fallback = ["<0xC3>", "<0xA9>"]
    engine = small_bpe(["a", *fallback], [], byte_fallback=True)
    left_out = LeftOut("x.json", engine)
    assert left_out.spans("aé", engine.encode("aé")) == [(0, 1), (1, 2), (1, 2)]
    with pytest.raises(UserError, match=r"^x\.json: unk_token: found none, and text with .*places"):
        left_out.spans("a☃é", engine.encode("a☃é"))


@pytest.mark.parametrize("text,unread", [
    ("e\u0301", ""), ("\u0301", "\u0301"), ("\u1112\u1161\u11ab", ""), ("\uff76\uff9e", ""),
    ("e|\u0301", "|\u0301"), ("e|", "|"),
])  # fmt: skip
def test_what_composes_with_a_letter_that_is_read_is_read_with_it(text, unread):
    found = unread_characters(text, [(0, 1)] if text[0] not in "\u0301|" else [])
    assert "".join(c for c, is_unread in zip(text, found, strict=True) if is_unread) == unread
