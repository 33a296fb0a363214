import json
import logging

import pytest

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.byte_bpe import ByteBPE
from bertjax.data.tokenizers.declared.tokenizer import DeclaredTokenizer
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import is_opened_from, load_tokenizer, open_vocabulary
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from tests.data.tokenizers.declared.folders import (
    BERT_ROLES,
    GENERAL,
    add,
    byte_bpe,
    put,
    renamed,
    sequence,
    word_piece,
)
from tests.data.tokenizers.test_byte_bpe import TRAINED as BYTE_BPE
from tests.data.tokenizers.test_tokenizer import TRAINED, ids_of


def test_a_file_of_berts_rules_is_the_tokenizer_that_has_them_built_in(tmp_path):
    tokenizer = read_tokenizer_folder(put(tmp_path / "x", word_piece()))
    assert isinstance(tokenizer, WordPiece)
    assert tokenizer.fingerprint == TRAINED["wordpiece"].fingerprint
    engine = word_piece()
    engine["normalizer"] |= {"lowercase": False, "strip_accents": True}
    cased = read_tokenizer_folder(put(tmp_path / "y", engine))
    assert isinstance(cased, WordPiece)
    assert (cased.lowercase, cased.strip_accents) == (False, True)


def test_a_file_of_robertas_rules_is_the_tokenizer_that_has_them_built_in(tmp_path):
    tokenizer = read_tokenizer_folder(put(tmp_path / "x", byte_bpe()))
    assert isinstance(tokenizer, ByteBPE)
    assert tokenizer.fingerprint == BYTE_BPE.fingerprint


@pytest.mark.parametrize("kind,keys,value", [
    ("wordpiece", ("normalizer", "clean_text"), False),
    ("wordpiece", ("normalizer", "handle_chinese_chars"), False),
    ("wordpiece", ("normalizer",), None),
    ("wordpiece", ("pre_tokenizer",), {"type": "WhitespaceSplit"}),
    ("wordpiece", ("model", "max_input_chars_per_word"), 200),
    ("byte_bpe", ("normalizer",), {"type": "NFC"}),
    ("byte_bpe", ("pre_tokenizer", "use_regex"), False),
    ("byte_bpe", ("model", "ignore_merges"), True),
])  # fmt: skip
def test_any_other_rule_is_run_as_it_is(tmp_path, kind, keys, value):
    engine = {"wordpiece": word_piece, "byte_bpe": byte_bpe}[kind]()
    *path, last = keys
    values = engine
    for key in path:
        values = values[key]
    values[last] = value
    assert isinstance(read_tokenizer_folder(put(tmp_path / "x", engine)), DeclaredTokenizer)


def refused(folder, message):
    with pytest.raises(UserError, match=message) as caught:
        read_tokenizer_folder(folder)
    assert "tokenizer" in str(caught.value)
    assert "\n" not in str(caught.value)


def special(name, segment=0):
    return {"SpecialToken": {"id": name, "type_id": segment}}


def text(name, segment=0):
    return {"Sequence": {"id": name, "type_id": segment}}


@pytest.mark.parametrize("single,pair", [
    ([text("A"), special("[SEP]")], [text("A"), text("B")]),
    ([special("[CLS]"), text("A"), special("[SEP]")], [special("[CLS]"), text("A"), special("[SEP]"), text("B"), special("[SEP]")]),
    ([special("[SEP]"), text("A"), special("[CLS]")], [text("A"), text("B")]),
])  # fmt: skip
def test_special_tokens_at_other_places_are_refused_with_the_places(tmp_path, single, pair):
    engine = word_piece()
    engine["post_processor"] |= {"single": single, "pair": pair}
    refused(put(tmp_path / "x", engine), r"tokenizer\.json: post_processor: found .*SEP.* expected")


def test_inputs_without_special_tokens_are_those_of_bertjax_and_said(tmp_path, caplog):
    engine = word_piece()
    engine |= {"post_processor": None, "pre_tokenizer": {"type": "Whitespace"}}
    with caplog.at_level(logging.WARNING, "bertjax"):
        tokenizer = read_tokenizer_folder(put(tmp_path / "x", engine))
    assert "post_processor: found none" in caplog.text
    tokenizer.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    assert saved["post_processor"]["type"] == "TemplateProcessing"
    assert saved["truncation"] is saved["padding"] is None


def test_a_class_of_berts_rules_beside_a_file_of_others_is_refused(tmp_path):
    engine = word_piece()
    engine["pre_tokenizer"] = {"type": "Whitespace"}
    message = "pre_tokenizer: type: found 'Whitespace', expected 'BertPreTokenizer', as the class"
    refused(put(tmp_path / "x", engine, {"tokenizer_class": "BertTokenizer"}), message)
    refused(put(tmp_path / "y", engine, {}, config={"model_type": "bert"}), message)
    engine = byte_bpe()
    engine["normalizer"] = {"type": "Lowercase"}
    folder = put(tmp_path / "z", engine, {"tokenizer_class": "RobertaTokenizer"})
    refused(folder, "normalizer: type: found 'Lowercase', expected None, as the class")


TEXT = "The DOG the dog"


@pytest.mark.parametrize("model,takes", [
    ({"vocab_size": 999}, True), ({"model_type": "", "hidden_size": 8}, True),
    ({"model_type": "bert"}, False), ({"tokenizer_class": "BertTokenizer"}, False),
    ({"model_type": "bert", "tokenizer_class": "PreTrainedTokenizerFast"}, True),
])  # fmt: skip
@pytest.mark.parametrize("with_vocab_txt", [True, False])
def test_a_config_without_a_model_type_leaves_letters_to_the_file(
    tmp_path, model, takes, with_vocab_txt
):
    engine = word_piece()
    folder = put(tmp_path / "x", engine, {"do_lower_case": False}, config=model)
    if with_vocab_txt:
        (folder / "vocab.txt").write_bytes(TRAINED["wordpiece"]._content)
    tokenizer = read_tokenizer_folder(folder)
    assert tokenizer.lowercase is takes
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
    assert theirs(TEXT, add_special_tokens=False)["input_ids"] == ids_of(tokenizer, TEXT)


def test_other_merges_beside_the_file_are_refused(tmp_path):
    BYTE_BPE.save(tmp_path / "ours")
    engine = byte_bpe()
    del engine["model"]["merges"][-1]
    folder = put(tmp_path / "x", engine, {"tokenizer_class": "RobertaTokenizer"})
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((tmp_path / "ours" / name).read_bytes())
    refused(folder, r"found other merges than those of merges\.txt beside it")


def test_what_cannot_be_reproduced_is_refused_by_its_field(tmp_path):
    engine = word_piece()
    engine["model"]["unk_token"] = "the"
    refused(put(tmp_path / "a", engine, {**GENERAL, **BERT_ROLES}), "unk_token: found 'the'")
    engine = byte_bpe()
    engine["model"]["dropout"] = 0.1
    refused(put(tmp_path / "b", engine), r"dropout: found 0\.1, expected none")
    settings = {**GENERAL, **BERT_ROLES, "sep_token": "[CLS]"}
    refused(put(tmp_path / "e", word_piece(), settings), "found the special tokens .*CLS")
    engine = word_piece()
    add(engine, ("<A>", "normalized"), ("<a>", "normalized"))
    refused(put(tmp_path / "c", engine), "the registered tokens '<A>' and '<a>', both '<a>'")
    engine = word_piece()
    add(engine, ("<user>",))
    engine["added_tokens"][-1]["id"] += 5
    refused(put(tmp_path / "f", engine), "the token '<user>' of id .* expected the id")


def no_space_in_pieces():
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}  # fmt: skip
    engine = byte_bpe()
    engine["pre_tokenizer"] = sequence("pretokenizers", "WhitespaceSplit", level)
    return engine


def no_prefix():
    engine = word_piece()
    engine["model"]["continuing_subword_prefix"] = ""
    return engine


def mark_at_the_end():
    engine = byte_bpe()
    engine["model"] |= {"end_of_word_suffix": "</w>"}
    engine["pre_tokenizer"] = {"type": "Whitespace"}
    return engine


def not_divided_at_spaces():
    engine = word_piece()
    engine["pre_tokenizer"] = {"type": "Punctuation", "behavior": "Isolated"}
    return engine


def bytes_and_a_mark_at_the_end():
    """As CLIP's file."""
    engine = no_space_in_pieces()
    engine["model"] |= {"end_of_word_suffix": "</w>"}
    return engine


PIECES = "pre_tokenizer: found pieces that do not show where words"
SUFFIX = "end_of_word_suffix: found '</w>', by which pieces show where words end, expected pieces"


@pytest.mark.parametrize("make,message", [
    (no_space_in_pieces, PIECES), (no_prefix, PIECES), (mark_at_the_end, SUFFIX),
    (bytes_and_a_mark_at_the_end, SUFFIX), (not_divided_at_spaces, PIECES),
])  # fmt: skip
def test_pieces_that_do_not_show_words_are_words_and_prepare_refuses_them(tmp_path, make, message):
    folder = put(tmp_path / "x", make())
    tokenizer = read_tokenizer_folder(folder)
    assert tokenizer.starts_word.sum() == tokenizer.vocab_size - len(tokenizer.special_ids)
    config = TokenizerConfig(vocab_file=str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=message):
        open_vocabulary(config)
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
    expected = theirs("the dogs, the", add_special_tokens=False)["input_ids"]
    assert ids_of(tokenizer, "the dogs, the") == expected


@pytest.mark.parametrize("name,found", [
    ("fox", True), ("!", True), ("##s", True), ("a", True), ("\u72d0", True),
    ("[PAD]", False), ("<fox>", False), ("__pad__", False), ("PAD", False), ("a fox", False),
])  # fmt: skip
def test_a_special_token_that_is_a_word_of_text_is_refused(tmp_path, name, found):
    engine = renamed(word_piece(), {name: "[old]", "[PAD]": name})
    engine["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    folder = put(tmp_path / "x", engine, {**GENERAL, **BERT_ROLES, "pad_token": name})
    if found:
        refused(folder, f"pad_token: found '{name}', which text may have, expected a name in")
    else:
        tokenizer = read_tokenizer_folder(folder)
        assert tokenizer.pieces([tokenizer.pad_id]) == [name]


def test_a_word_that_stands_for_unknown_text_is_none_that_text_loses(tmp_path):
    # No piece has this letter: the word is unknown with and without the name.
    for name, other in (("\u0436\u0436", "the"), ("cat", "dog")):
        engine = renamed(word_piece(), {name: "[old]", "[UNK]": name})
        engine["pre_tokenizer"] = {"type": "WhitespaceSplit"}
        folder = put(tmp_path / "x", engine, {**GENERAL, **BERT_ROLES, "unk_token": name})
        if name == "cat":
            refused(folder, "unk_token: found 'cat', which text may have")
            continue
        tokenizer = read_tokenizer_folder(folder)
        expected = [tokenizer.unk_id, engine["model"]["vocab"][other]]
        assert ids_of(tokenizer, f"{name} {other}") == expected


def test_a_missing_special_token_is_named_with_the_setting_that_names_it(tmp_path):
    settings = {**GENERAL, "mask_token": "<mask>"}
    tokenizer = read_tokenizer_folder(put(tmp_path / "x", word_piece(), settings))
    # As `transformers`, which adds the special tokens that the vocabulary lacks.
    assert tokenizer.mask_id == tokenizer.vocab_size - 1
    engine = word_piece()
    vocab = engine["model"]["vocab"]
    vocab["nothing"] = vocab.pop("[MASK]")
    engine["added_tokens"] = [t for t in engine["added_tokens"] if t["content"] != "[MASK]"]
    refused(put(tmp_path / "y", engine), r"found no \[MASK\] among .* special token in mask_token")


def test_prepare_opens_a_tokenizer_json_of_any_name(tmp_path):
    engine = word_piece()
    engine["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    folder = put(tmp_path / "x", engine)
    (folder / "my.json").write_bytes((folder / "tokenizer.json").read_bytes())
    expected = read_tokenizer_folder(folder)
    for name in ("tokenizer.json", "my.json"):
        config = TokenizerConfig(vocab_file=str(folder / name))
        tokenizer = open_vocabulary(config)
        assert ids_of(tokenizer, "The dog, the") == ids_of(expected, "The dog, the")
        assert tokenizer.fingerprint == expected.fingerprint
        assert is_opened_from(expected.fingerprint, config)
    expected.save(tmp_path / "saved")
    saved = TokenizerConfig(vocab_file=str(tmp_path / "saved" / "tokenizer.json"))
    assert open_vocabulary(saved).fingerprint == expected.fingerprint
    folder = put(tmp_path / "y", engine, {"do_lower_case": False})
    with pytest.raises(UserError, match="do_lower_case: found False, expected True, as tokenizer"):
        open_vocabulary(TokenizerConfig(vocab_file=str(folder / "tokenizer.json")))
    with pytest.raises(UserError, match=r"tokenizer\.strip_accents: found False, expected True"):
        open_vocabulary(TokenizerConfig(vocab_file=str(folder.parent / "x" / "my.json"), strip_accents=False))  # fmt: skip


def test_a_vocab_json_beside_merges_is_no_tokenizer_json(tmp_path):
    BYTE_BPE.save(tmp_path)
    config = TokenizerConfig(
        kind="byte_bpe", lowercase=False, vocab_file=str(tmp_path / "vocab.json")
    )
    assert open_vocabulary(config).fingerprint == BYTE_BPE.fingerprint


def test_a_saved_folder_that_names_other_rules_is_refused(tmp_path):
    engine = word_piece()
    engine["normalizer"] = None
    read_tokenizer_folder(put(tmp_path / "x", engine)).save(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    put(tmp_path / "saved", engine, settings | {"rules": "../tokenizer.json"})
    with pytest.raises(UserError, match=r"rules: found '\.\./tokenizer\.json', expected 'token"):
        load_tokenizer(tmp_path / "saved")
