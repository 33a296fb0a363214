"""Tokenizers that a `tokenizer.json` declares, against `AutoTokenizer` of the same folder."""

from itertools import pairwise

import pytest

from bertjax.data.tokenizers.declared.tokenizer import DeclaredTokenizer
from bertjax.data.tokenizers.export_check import drawn_texts
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import load_tokenizer
from bertjax.errors import UserError
from bertjax.interop.extend.new_words import extend_tokenizer
from tests.data.tokenizers.declared.makers import (
    MADE,
    added_tokens,
    byte_level_with_other_words,
    limits_of_length,
    metaspace,
    no_normalizer,
    no_post_processor,
    other_prefix,
    other_special_tokens,
    short_words,
    whole_words_at_spaces,
    words_and_digits,
)
from tests.data.tokenizers.test_tokenizer import ids_of

SHARED_CASES = ("tok_course_norm", "tok_norm_none", "tok_pre_whitespace")


@pytest.fixture(scope="module")
def auto_tokenizer():
    return pytest.importorskip("transformers").AutoTokenizer


def assert_equal_ids(tokenizer, theirs, texts):
    ids, offsets = tokenizer.encode_batch(texts)
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    for text, (begin, end), row in zip(texts, pairwise(offsets), expected, strict=True):
        assert ids[begin:end].tolist() == row, ascii(text)


# The first is for each run of the tests.
COUNTS = [200, pytest.param(2000, marks=pytest.mark.slow)]


def assert_reads_as(tokenizer, folder, auto_tokenizer, tmp_path, count):
    """The ids of drawn texts are those of `AutoTokenizer`, also after saving and loading."""
    theirs = auto_tokenizer.from_pretrained(folder)
    texts = list(drawn_texts(tokenizer, count))
    assert len(tokenizer.pieces(range(tokenizer.vocab_size))) == len(theirs)
    assert_equal_ids(tokenizer, theirs, texts)
    for text in ("the [MASK] dog", "[MASK]", "a[MASK]b  [MASK] c"):
        spelt = text.replace("[MASK]", tokenizer.pieces([tokenizer.mask_id])[0])
        expected = theirs(spelt, add_special_tokens=False)["input_ids"]
        assert tokenizer.encode_with_masks(text).tolist() == expected
    saved = tmp_path / "saved"
    tokenizer.save(saved)
    exported = auto_tokenizer.from_pretrained(saved)
    loaded = load_tokenizer(saved)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert_equal_ids(loaded, theirs, texts[:100])
    assert_equal_ids(tokenizer, exported, texts[:100])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_a_general_class_gives_the_ids_of_auto_tokenizer(make, tmp_path, auto_tokenizer, count):
    folder = make(tmp_path)
    tokenizer = read_tokenizer_folder(folder)
    assert isinstance(tokenizer, DeclaredTokenizer)
    assert_reads_as(tokenizer, folder, auto_tokenizer, tmp_path, count)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("case", SHARED_CASES)
def test_tokenizers_of_the_cases_give_the_ids_of_auto_tokenizer(
    case, tmp_path, auto_tokenizer, shared_data, count
):
    folder = shared_data.parent / "cases" / "tokenizers" / case
    if not folder.exists():
        pytest.skip("the cases are not here")
    tokenizer = read_tokenizer_folder(folder)
    assert_reads_as(tokenizer, folder, auto_tokenizer, tmp_path, count)


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    return read_tokenizer_folder(added_tokens(tmp_path_factory.mktemp("added")))


def test_text_that_spells_a_special_token_does_not_become_it(tmp_path):
    for make in (whole_words_at_spaces, byte_level_with_other_words, other_special_tokens):
        tokenizer = read_tokenizer_folder(make(tmp_path / make.__name__))
        names = tokenizer.pieces(tokenizer.special_ids.tolist())
        ids = set(ids_of(tokenizer, " ".join(names)))
        # What no piece spells is unknown.
        assert not ids & {*tokenizer.special_ids.tolist()} - {tokenizer.unk_id}


def test_added_tokens_are_kept_whole_and_begin_words(added):
    found = added.pieces(ids_of(added, "a<user>b catcat cat the dogs"))
    assert found.count("<user>") == found.count("cat") == found.count("the dog") == 1
    assert [token.content for token in added.registered] == ["<user>", "the dog", "[E1]", "cat"]
    new = ids_of(added, "<user>")
    assert added.starts_word[new].all()
    assert not set(new) & set(added.special_ids.tolist())


def test_pieces_that_begin_words_are_those_without_the_prefix(tmp_path):
    tokenizer = read_tokenizer_folder(other_prefix(tmp_path))
    for entry, starts in zip(
        tokenizer.pieces(range(tokenizer.vocab_size)), tokenizer.starts_word, strict=True
    ):
        special = entry.startswith("[") and len(entry) > 1
        assert starts == (not entry.startswith("@@") and not special)
    assert "the" in tokenizer.words()
    assert not any(word.startswith("@@") for word in tokenizer.words())


def test_tokens_begin_at_their_first_visible_character(tmp_path):
    for make in (metaspace, byte_level_with_other_words, words_and_digits):
        tokenizer = read_tokenizer_folder(make(tmp_path / make.__name__))
        text = "the  dog, \u00e9 the"
        (begins,) = tokenizer.encode_begins([text])
        assert len(begins) == len(ids_of(tokenizer, text))
        assert begins == sorted(begins)
        assert {text.index("dog"), text.index(","), len(text) - 3} <= set(begins)


def test_a_tokenizer_without_a_decoder_writes_words_apart(tmp_path):
    tokenizer = read_tokenizer_folder(no_post_processor(tmp_path))
    assert tokenizer.decode(ids_of(tokenizer, "the dog")) == "the dog"


def test_an_engine_of_other_rules_takes_no_new_entries(tmp_path):
    read_tokenizer_folder(short_words(tmp_path)).save(tmp_path / "saved")
    with pytest.raises(UserError, match="takes no new entries, expected wordpiece with BERT's"):
        extend_tokenizer(tmp_path / "saved", ["newword"], "words.txt")


def test_the_fingerprint_tells_rules_apart(tmp_path):
    makers = (no_normalizer, words_and_digits, short_words, added_tokens, other_prefix)
    found = [read_tokenizer_folder(make(tmp_path / make.__name__)).fingerprint for make in makers]
    assert len(set(found)) == len(makers)
    again = read_tokenizer_folder(limits_of_length(tmp_path / "limits")).fingerprint
    assert again == read_tokenizer_folder(no_post_processor(tmp_path / "none")).fingerprint
