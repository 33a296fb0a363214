"""Tokenizers that a `tokenizer.json` declares, against `AutoTokenizer` of the same folder."""

import json
from itertools import pairwise

import pytest

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.declared.tokenizer import DeclaredTokenizer
from bertjax.data.tokenizers.export_check import drawn_texts
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import load_tokenizer, open_vocabulary
from bertjax.errors import UserError
from bertjax.interop.extend.new_words import extend_tokenizer
from tests.data.tokenizers.declared.folders import (
    BERT_ROLES,
    GENERAL,
    add,
    byte_bpe,
    prefixed,
    put,
    renamed,
    sequence,
    word_piece,
)
from tests.data.tokenizers.test_tokenizer import ids_of

SHARED_CASES = ("tok_course_norm", "tok_norm_none", "tok_pre_whitespace")


def course_normalizer(tmp_path):
    engine = word_piece()
    engine["normalizer"] = sequence("normalizers", "NFD", "Lowercase", "StripAccents")
    engine["pre_tokenizer"] = sequence(
        "pretokenizers", "WhitespaceSplit", {"type": "Punctuation", "behavior": "Isolated"}
    )
    return put(tmp_path / "x", engine, {**GENERAL, **BERT_ROLES})


def no_normalizer(tmp_path):
    engine = word_piece()
    engine["normalizer"] = None
    return put(tmp_path / "x", engine)


def compatibility_normalizer(tmp_path):
    engine = word_piece()
    replace = {"type": "Replace", "pattern": {"Regex": "[0-9]+"}, "content": "the"}
    engine["normalizer"] = sequence("normalizers", "NFKC", "Lowercase", replace)
    return put(tmp_path / "x", engine)


def chinese_not_divided(tmp_path):
    engine = word_piece()
    engine["normalizer"] |= {"handle_chinese_chars": False, "clean_text": False}
    return put(tmp_path / "x", engine)


def words_and_digits(tmp_path):
    engine = word_piece()
    digits = {"type": "Digits", "individual_digits": True}
    engine["pre_tokenizer"] = sequence("pretokenizers", "Whitespace", digits)
    return put(tmp_path / "x", engine)


def whole_words_at_spaces(tmp_path):
    engine = word_piece()
    engine["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    return put(tmp_path / "x", engine)


def other_prefix(tmp_path):
    return put(tmp_path / "x", prefixed(word_piece(), "@@"))


def short_words(tmp_path):
    engine = word_piece()
    engine["model"]["max_input_chars_per_word"] = 5
    return put(tmp_path / "x", engine)


def other_special_tokens(tmp_path):
    names = {"[PAD]": "<p>", "[UNK]": "<u>", "[CLS]": "<c>", "[SEP]": "<e>", "[MASK]": "<m>"}
    settings = {role: names[name] for role, name in BERT_ROLES.items()}
    return put(tmp_path / "x", renamed(word_piece(), names), {**GENERAL, **settings})


def added_tokens(tmp_path):
    engine = word_piece()
    add(engine, ("<user>", "special"), ("the dog", "normalized"), ("[E1]", "lstrip", "rstrip"),
        ("cat", "single_word"))  # fmt: skip
    return put(tmp_path / "x", engine)


def tokens_of_the_settings(tmp_path):
    decoder = {"4": {"content": "[MASK]", "lstrip": True, "special": True}}
    engine = word_piece()
    size = len(engine["model"]["vocab"])
    decoder[str(size)] = {"content": "<z>", "rstrip": True, "normalized": True}
    settings = {**GENERAL, **BERT_ROLES, "added_tokens_decoder": decoder, "image_token": "<img>"}
    settings["additional_special_tokens"] = ["<b>", "the"]
    return put(tmp_path / "x", engine, settings)


def tokens_of_older_settings(tmp_path):
    engine = word_piece()
    size = len(engine["model"]["vocab"])
    special_tokens_map = {**BERT_ROLES, "additional_special_tokens": ["<b>", "<c>"]}
    added = {"<c>": size, "New": size + 1}
    return put(
        tmp_path / "x",
        engine,
        GENERAL,
        special_tokens_map=special_tokens_map,
        added_tokens=added,
    )


def limits_of_length(tmp_path):
    engine = word_piece()
    engine["pre_tokenizer"] = {"type": "Whitespace"}
    engine["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}  # fmt: skip
    engine["padding"] = {"strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                         "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    return put(tmp_path / "x", engine)


def no_post_processor(tmp_path):
    engine = word_piece()
    engine["post_processor"], engine["decoder"] = None, None
    engine["pre_tokenizer"] = {"type": "Whitespace"}
    return put(tmp_path / "x", engine)


def byte_level_with_normalizer(tmp_path):
    engine = byte_bpe()
    engine["normalizer"] = sequence("normalizers", "NFC", "Lowercase")
    return put(tmp_path / "x", engine)


def byte_level_with_other_words(tmp_path):
    engine = byte_bpe()
    digits = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}  # fmt: skip
    split = {"type": "Split", "pattern": {"Regex": " ?[a-z]+| ?[^ a-z]+"}, "behavior": "Isolated", "invert": False}  # fmt: skip
    engine["pre_tokenizer"] = sequence("pretokenizers", digits, split, level)
    return put(tmp_path / "x", engine)


def byte_level_with_berts_tokens(tmp_path):
    names = {"<pad>": "[PAD]", "<unk>": "[UNK]", "<s>": "[CLS]", "</s>": "[SEP]", "<mask>": "[MASK]"}  # fmt: skip
    engine = renamed(byte_bpe(), names)
    engine["post_processor"] = word_piece()["post_processor"]
    for special in engine["post_processor"]["special_tokens"].values():
        special["ids"] = [engine["model"]["vocab"][special["id"]]]
    add(engine, ("  ",), ("    ",), ("[unused0]",))
    engine["normalizer"] = {"type": "NFC"}
    return put(tmp_path / "x", engine, {**GENERAL, **BERT_ROLES})


def metaspace(tmp_path):
    """Pieces of characters, of which the first of a word has the mark of a space."""
    marked = {f"\u2581{c}" for c in "abcdefghijklmnopqrstuvwxyz"}
    characters = sorted({*"abcdefghijklmnopqrstuvwxyz.,\u2581", *marked})
    entries = [*BERT_ROLES.values(), *characters, "th", "the", "\u2581the"]
    merges = [["\u2581", c] for c in "abcdefghijklmnopqrstuvwxyz"]
    merges = [["t", "h"], ["th", "e"], ["\u2581", "the"], *merges]
    engine = word_piece()
    engine["model"] = {"type": "BPE", "unk_token": "[UNK]", "vocab": {e: i for i, e in enumerate(entries)},
                       "merges": merges, "fuse_unk": True}  # fmt: skip
    engine["normalizer"] = {"type": "Lowercase"}
    engine["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}  # fmt: skip
    engine["decoder"] = engine["pre_tokenizer"]
    return put(tmp_path / "x", engine)


def space_by_the_normalizer(tmp_path):
    """As Llama's file: the normalizer puts the mark of a space, and nothing divides text."""
    folder = metaspace(tmp_path)
    engine = json.loads((folder / "tokenizer.json").read_text())
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    engine["normalizer"] = sequence("normalizers", {"type": "Prepend", "prepend": "\u2581"}, space)
    engine["pre_tokenizer"] = None
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    engine["decoder"] = sequence("decoders", back, "Fuse", strip)
    return put(tmp_path / "x", engine)


def no_unknown_token(tmp_path):
    """Characters without a piece are left out."""
    folder = metaspace(tmp_path)
    engine = json.loads((folder / "tokenizer.json").read_text())
    engine["model"]["unk_token"] = None
    return put(tmp_path / "x", engine)


def delimiter(tmp_path):
    engine = word_piece()
    engine["pre_tokenizer"] = {"type": "CharDelimiterSplit", "delimiter": "|"}
    return put(tmp_path / "x", engine)


def removed_dashes(tmp_path):
    engine = word_piece()
    split = {"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed", "invert": False}
    engine["pre_tokenizer"] = sequence("pretokenizers", "Whitespace", split)
    return put(tmp_path / "x", engine)


MADE = [
    course_normalizer, no_normalizer, compatibility_normalizer, chinese_not_divided, words_and_digits,
    whole_words_at_spaces, other_prefix, short_words, other_special_tokens, added_tokens, tokens_of_the_settings,
    tokens_of_older_settings, limits_of_length, no_post_processor, byte_level_with_normalizer,
    byte_level_with_other_words, byte_level_with_berts_tokens, metaspace,
    space_by_the_normalizer, delimiter, removed_dashes, no_unknown_token,
]  # fmt: skip


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


def test_characters_that_the_rules_remove_are_in_no_token(tmp_path):
    text = "the|dog - the-dog"
    removed = {
        delimiter: "|",
        removed_dashes: "--",
        no_normalizer: None,
        byte_level_with_other_words: None,
        no_unknown_token: "|--",
        space_by_the_normalizer: None,
    }
    for make, expected in removed.items():
        tokenizer = read_tokenizer_folder(make(tmp_path / make.__name__))
        unread = tokenizer.unread([text, "dog"])
        if unread is None:
            assert expected is None
            continue
        found = [c for c, is_unread in zip(text, unread, strict=False) if is_unread]
        assert "".join(found).replace(" ", "") == expected
        assert len(unread) == len(text) + 3


def test_tokens_beside_characters_without_a_piece_begin_at_their_own(tmp_path):
    tokenizer = read_tokenizer_folder(no_unknown_token(tmp_path))
    text = "\u2603the d\u2603\u2603og\u2603 the"
    (begins,) = tokenizer.encode_begins([text])
    pieces = tokenizer.pieces(ids_of(tokenizer, text))
    letters = [piece.strip("\u2581")[:1] for piece in pieces]
    assert letters == [text[begin] for begin in begins] == ["t", "d", "o", "g", "t"]
    assert tokenizer.encode_counted([text, "the"])[2].unknown == 4


def test_a_mark_that_is_stripped_belongs_to_its_letter(tmp_path):
    folder = course_normalizer(tmp_path)
    engine = json.loads((folder / "tokenizer.json").read_text())
    engine["pre_tokenizer"] = {"type": "CharDelimiterSplit", "delimiter": " "}
    tokenizer = read_tokenizer_folder(put(folder, engine))
    text = "dog\u0301 the"
    unread = tokenizer.unread([text]).tolist()
    assert [c for c, is_unread in zip(text, unread, strict=True) if is_unread] == [" "]


@pytest.mark.parametrize("pattern", [{"String": " "}, {"Regex": " "}, {"Regex": "\\s+"}])
def test_pieces_begin_words_by_the_space_that_the_normalizer_writes(tmp_path, pattern):
    folder = space_by_the_normalizer(tmp_path)
    engine = json.loads((folder / "tokenizer.json").read_text())
    engine["normalizer"]["normalizers"][1]["pattern"] = pattern
    put(folder, engine)
    config = TokenizerConfig(vocab_file=str(folder / "tokenizer.json"))
    tokenizer = open_vocabulary(config)
    ids = ids_of(tokenizer, "the dog there")
    starts = [tokenizer.pieces([i])[0] for i in ids if tokenizer.starts_word[i]]
    assert starts == ["\u2581the", "\u2581d", "\u2581the"]
    assert {"the", "d"} <= set(tokenizer.words())


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
