import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.tokenizer import load_tokenizer, train_tokenizer
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.interop.extend import new_words
from tests.interop.extend.small_vocabulary import ENTRIES, folder_of, wordpiece


def test_whole_words_of_sentencepiece_lose_their_mark():
    tokenizer = train_tokenizer(
        TokenizerConfig(kind="unigram", vocab_size=60), ["the cat sees the other cat"] * 50
    )
    known = new_words.whole_words(tokenizer)
    assert "" not in known
    assert "cat" in known
    for word, i in known.items():
        assert tokenizer.pieces([i]) == ["▁" + word]


NEW = ["bat", "acc"]


@given(st.lists(st.text("abc ,.A", max_size=12), max_size=5))
def test_text_without_new_words_keeps_its_ids(tmp_path_factory, texts):
    old = wordpiece()
    new = new_words.extend_tokenizer(folder_of(tmp_path_factory.mktemp("t")), NEW, "new.txt")
    assert new.vocab_size == old.vocab_size + 2
    for text in texts:
        was, now = (t.encode_batch([text])[0].tolist() for t in (old, new))
        if not any(
            word.startswith(tuple(NEW))
            for word in text.lower().replace(",", " ").replace(".", " ").split()
        ):
            assert was == now
        else:
            assert was != now


def test_an_extended_tokenizer_treats_letters_and_words_as_before(tmp_path):
    content = "".join(f"{entry}\n" for entry in ENTRIES).encode()
    WordPiece("vocab.txt", content, True, strip_accents=False, word_rule=1).save(tmp_path)
    new = new_words.extend_tokenizer(tmp_path, ["été"], "new.txt")
    assert (new.lowercase, new.strip_accents, new.word_rule) == (True, False, 1)
    assert new_words.encode_words(new, ["ÉTÉ"]) == [[len(ENTRIES)]]


def test_pieces_of_thai_that_continue_a_word_are_no_whole_words():
    tokenizer = wordpiece([*ENTRIES, "ไทย", "##ไทย"])
    assert tokenizer.starts_word[len(ENTRIES) + 1]
    assert "ไทย" in new_words.whole_words(tokenizer)
    assert "##ไทย" not in new_words.whole_words(tokenizer)


@given(
    st.lists(st.text("abcé中𝄞-Z", min_size=1, max_size=6), min_size=1, max_size=5), st.booleans()
)
def test_a_new_word_is_one_id_or_is_refused(tmp_path_factory, added, lowercase):
    folder = folder_of(tmp_path_factory.mktemp("t"), lowercase=lowercase)
    old = load_tokenizer(folder)
    try:
        new = new_words.extend_tokenizer(folder, added, "new.txt")
    except UserError as error:
        assert str(error).startswith("new.txt, line ")  # noqa: PT017
        return
    assert new_words.encode_words(new, added) == [[old.vocab_size + i] for i in range(len(added))]
    assert new.pieces(range(new.vocab_size)) == [*ENTRIES, *added]


def test_a_saved_vocabulary_without_a_last_newline_or_with_carriage_returns_is_extended(tmp_path):
    folder_of(tmp_path)
    for content in ("\n".join(ENTRIES), "\r\n".join(ENTRIES) + "\r\n"):
        (tmp_path / "vocab.txt").write_bytes(content.encode())
        new = new_words.extend_tokenizer(tmp_path, ["dog"], "new.txt")
        assert new.pieces([13]) == ["dog"]
        assert new_words.encode_words(new, ["cat dog"]) == [[11, 13]]


@pytest.mark.parametrize("added,message", [
    (["dog", ""], r"new.txt, line 2: found '', expected a word without spaces"),
    (["new york"], r"new.txt, line 1: found 'new york', expected a word without spaces"),
    (["cat"], r"line 1: found 'cat', which is in the vocabulary already, expected a new word"),
    (["dog", "dog"], r"line 2: found 'dog', which is on line 1 already"),
    (["dog", "covid-19", "Dog", "é"], r"line 2: found 'covid-19', read as '.*' \(3 lines like it\), expected a word that BERT does not split"),
    (["##dog"], r"line 1: found '##dog', read as"),
    (["d" * 101], r"line 1: found 'd+'\.\.\., read as '\[UNK\]', expected"),
])  # fmt: skip
def test_entries_that_cannot_be_added_are_named_with_their_line(tmp_path, added, message):
    with pytest.raises(UserError, match=message):
        new_words.extend_tokenizer(folder_of(tmp_path), added, "new.txt")


def test_only_wordpiece_is_extended(tmp_path):
    train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=40), ["the cat sees the cat"] * 50).save(
        tmp_path
    )
    with pytest.raises(
        UserError,
        match="found a tokenizer of kind bpe, which takes no new entries, expected wordpiece",
    ):
        new_words.extend_tokenizer(tmp_path, ["dog"], "new.txt")


@pytest.mark.parametrize("content,expected", [
    (b"dog\nbird\n", ["dog", "bird"]), (b"dog\r\nbird", ["dog", "bird"]), (b"\xef\xbb\xbfdog\n\nbird\n", ["dog", "", "bird"]),
])  # fmt: skip
def test_new_words_are_read_a_line_each(tmp_path, content, expected):
    (tmp_path / "new.txt").write_bytes(content)
    assert new_words.read_new_words(tmp_path / "new.txt") == expected


@pytest.mark.parametrize("content,message", [
    (b"", "found no word"), (b"\n \n", "found no word"), (b"\xff\n", "cannot be read as a list of words"),
    (None, "cannot be read as a list of words"),
])  # fmt: skip
def test_a_broken_list_of_new_words_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "new.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"new\.txt: {message}"):
        new_words.read_new_words(tmp_path / "new.txt")
