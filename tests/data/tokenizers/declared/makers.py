"""Makers of folders whose `tokenizer.json` has rules of its own, each of another kind."""

import json

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
