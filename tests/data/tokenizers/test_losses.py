import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.byte_bpe import ByteBPE
from bertjax.data.tokenizers.losses import Losses, loses_mark
from bertjax.data.tokenizers.tokenizer import open_vocabulary, train_tokenizer
from bertjax.data.tokenizers.vocabulary import ROBERTA_TOKENS, SPECIAL_TOKENS

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
