import hashlib
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.export_check import check_export
from bertjax.data.tokenizers.given.vocab_txt import read_entries
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import is_opened_from, load_tokenizer, open_vocabulary
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.interop.extend.new_words import extend_tokenizer
from tests.data.tokenizers.test_huggingface import put
from tests.data.tokenizers.test_tokenizer import ids_of

HEAD = "".join(f"{name}\n" for name in SPECIAL_TOKENS)
TEXT = "a b c d e f g h i j gh"
LINES = st.sampled_from(
    ["a", "b", "##b", " c", "d ", "e\t", "f\u00a0", "g\u3000", "h\x1f", "", " ", "i\r", "j\rk", "\u2028", "\ufeff", "l\x85"]
)  # fmt: skip


@given(lines=st.lists(LINES, min_size=1, max_size=12), end=st.sampled_from(["\n", "\r\n", ""]))
@example(lines=["a", "", "b"], end="")
@example(lines=["a", "b", "", " "], end="\n")
def test_each_line_has_the_id_that_tokenizers_gives_it(tmp_path_factory, lines, end):
    from tokenizers.models import WordPiece as Reference

    folder = tmp_path_factory.mktemp("vocabulary")
    put(folder, vocab_txt=HEAD + "\n".join(lines) + end)
    theirs = Reference.read_file(str(folder / "vocab.txt"))
    entries, _ = read_entries("x", (folder / "vocab.txt").read_bytes())
    ours = {entry: i for i, entry in enumerate(entries)}
    # The id of the last blank line is of no use, whichever it is.
    assert {**ours, "": 0} == {**theirs, "": 0}


CONTENTS = [
    HEAD + "a\n\nb\n", HEAD + "a\r\n\r\nb\r\n", HEAD + "a  \nb\t\n", HEAD + "a\nb\n\n\n", HEAD + "a\nb",
    HEAD + "a\nb\na\n", HEAD + "\u3000\na\nb\n", "\n" + HEAD + "a\n b\nb", "\ufeffb\n" + HEAD + "a\n",
]  # fmt: skip


@pytest.mark.parametrize("content", CONTENTS)
def test_ids_are_those_of_auto_tokenizer_here_and_after_export(tmp_path, content):
    transformers = pytest.importorskip("transformers")
    files = {"config_json": {"model_type": "bert"}, "vocab_txt": content}
    put(tmp_path / "theirs", **files)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    expected = theirs(TEXT, add_special_tokens=False)["input_ids"]
    tokenizer = read_tokenizer_folder(tmp_path / "theirs")
    assert ids_of(tokenizer, TEXT) == expected
    assert [tokenizer.pad_id, tokenizer.mask_id] == [theirs.pad_token_id, theirs.mask_token_id]
    tokenizer.save(tmp_path / "ours")
    assert ids_of(load_tokenizer(tmp_path / "ours"), TEXT) == expected
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert exported(TEXT, add_special_tokens=False)["input_ids"] == expected
    assert exported.pad_token_id == tokenizer.pad_id
    # The slow class of version 4 reads the lines in its own way.
    slow = transformers.models.bert.tokenization_bert_legacy.BertTokenizerLegacy
    read = slow(str(tmp_path / "ours" / "vocab.txt"))
    assert read(TEXT, add_special_tokens=False)["input_ids"] == expected


def test_a_byte_order_mark_changes_no_id(tmp_path):
    put(tmp_path, vocab_txt="\ufeff" + HEAD + "a\nb\n")
    plain = WordPiece("x", (HEAD + "a\nb\n").encode(), True)
    marked = read_tokenizer_folder(tmp_path)
    assert (marked.pad_id, marked.fingerprint) == (0, plain.fingerprint)
    assert ids_of(marked, "a b") == [5, 6]


def test_blank_lines_at_the_end_need_no_row_of_the_model(tmp_path):
    put(tmp_path, vocab_txt=HEAD + "a\n\n \n")
    assert read_tokenizer_folder(tmp_path).vocab_size == 6


@pytest.mark.parametrize("content", [HEAD + "a\nb", HEAD + "a\r\nb\r\n", HEAD + "a\nb\n"])
def test_files_that_were_read_before_keep_their_fingerprint(content):
    assert read_entries("x", content.encode()).content == content.encode()


ODD = (HEAD + "a\n##b \nb\t\nc\u3000\nb\n \nThe \nd\r\n").encode()
EARLIER = [*SPECIAL_TOKENS, "a", "##b ", "b\t", "c\u3000", "b", " ", "The ", "d"]
"""The entries of `ODD` in versions for which white space at a line's end was a part of them."""


def saved_earlier(folder, lowercase=True):
    """A folder as those versions saved it, and its fingerprint there."""
    settings = {"kind": "wordpiece", "do_lower_case": lowercase, "vocab_file": "vocab.txt"}
    put(folder, vocab_txt=ODD, tokenizer_config_json=settings)
    return folder, hashlib.sha256(f"wordpiece {lowercase} ".encode() + ODD).hexdigest()


def test_a_folder_that_was_saved_before_keeps_entries_fingerprint_and_ids(tmp_path):
    folder, fingerprint = saved_earlier(tmp_path / "run")
    for tokenizer in (load_tokenizer(folder), read_tokenizer_folder(folder)):
        assert tokenizer.pieces(range(tokenizer.vocab_size)) == EARLIER
        assert tokenizer.fingerprint == fingerprint
        # `##b ` and `c\u3000` were never found in text.
        assert ids_of(tokenizer, "a ab b c d") == [5, 1, 9, 1, 12]
        tokenizer.save(tmp_path / "again")
        again = load_tokenizer(tmp_path / "again")
        assert (again.fingerprint, ids_of(again, "ab b d")) == (fingerprint, [1, 9, 12])
        check_export(tokenizer, "here")


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_file_that_was_read_otherwise_before_still_counts_as_the_one(tmp_path, lowercase):
    _, earlier = saved_earlier(tmp_path / "run", lowercase)
    file = tmp_path / "vocab.txt"
    file.write_bytes(ODD)
    config = TokenizerConfig(vocab_file=str(file), lowercase=lowercase)
    today = open_vocabulary(config).fingerprint
    assert today != earlier
    assert is_opened_from(earlier, config)
    assert is_opened_from(today, config)
    assert not is_opened_from(earlier, replace(config, lowercase=not lowercase))
    file.write_bytes(ODD.replace(b"a\n", b"e\n"))
    assert not is_opened_from(earlier, config)
    # Before, such a file was refused: nothing was made from it.
    file.write_bytes(b"\xef\xbb\xbf" + ODD)
    assert not is_opened_from(earlier, config)


def test_new_words_leave_the_ids_of_a_folder_that_was_saved_before(tmp_path):
    folder, _ = saved_earlier(tmp_path / "run")
    grown = extend_tokenizer(folder, ["newest", "c"], "words")
    assert grown.pieces(range(grown.vocab_size)) == [*EARLIER, "newest", "c"]
    assert ids_of(grown, "newest a b c") == [13, 5, 9, 14]


def test_what_is_saved_today_has_the_same_entries_by_both_rules(tmp_path):
    for number, content in enumerate(CONTENTS):
        tokenizer = WordPiece("x", content.encode(), True)
        tokenizer.save(tmp_path / str(number))
        loaded = load_tokenizer(tmp_path / str(number))
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.pieces(range(loaded.vocab_size)) == tokenizer.pieces(range(loaded.vocab_size))


def test_blank_and_repeated_lines_are_counted_once_in_a_warning(tmp_path, caplog):
    put(tmp_path, vocab_txt=HEAD + "a\n\nb\na\nb\n\nc\n")
    open_vocabulary(TokenizerConfig(vocab_file=str(tmp_path / "vocab.txt")))
    assert "vocab.txt: 2 blank lines; each has an id, which no text gets" in caplog.text
    assert "vocab.txt: 2 lines repeat an entry, whose last id counts" in caplog.text
    assert "first 'a'" in caplog.text
    caplog.clear()
    read_tokenizer_folder(tmp_path).save(tmp_path / "saved")
    assert len(caplog.records) == 2
    caplog.clear()
    load_tokenizer(tmp_path / "saved")
    assert not caplog.records


def test_bytes_that_are_not_utf8_are_named():
    with pytest.raises(UserError, match=r"x: found bytes that are not UTF-8 \("):
        read_entries("x", b"\xff\n")


@pytest.mark.parametrize("end,message", [
    ("\n", "found a blank line at the end, and the token '<new>' added"),
    ("a\n", "found repeated entries, and the token '<new>' added"), ("", None), ("\nb\n", None),
])  # fmt: skip
def test_a_token_is_added_only_where_its_id_is_the_one_in_other_programs(tmp_path, end, message):
    settings = {"tokenizer_class": "BertTokenizer", "additional_special_tokens": ["<new>"]}
    files = {"config_json": {"model_type": "bert"}, "tokenizer_config_json": settings}
    put(tmp_path, vocab_txt=HEAD + "a\n" + end, **files)
    if message:
        with pytest.raises(UserError, match=message):
            read_tokenizer_folder(tmp_path)
        return
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs("a <new> b", add_special_tokens=False)["input_ids"]
    assert ids_of(read_tokenizer_folder(tmp_path), "a <new> b") == expected
