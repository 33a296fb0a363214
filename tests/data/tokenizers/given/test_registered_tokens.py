import itertools
import json
import random
from functools import cache

import pytest

from bertjax.data.tokenizers.export_check import check_export
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import load_tokenizer
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.interop.extend.new_words import extend_tokenizer
from tests.data.tokenizers.test_byte_bpe import TRAINED as BYTE_BPE
from tests.data.tokenizers.test_huggingface import put, vocab_txt
from tests.data.tokenizers.test_tokenizer import TRAINED, ids_of

MARKS = ["[unused1]", "<user>", "[E1]", "[/e1]", "<A>", "<a>", "天气", "@Ü", "new york", "user"]
WORDS = ["the", "user", "##ser", "new", "york", "##s", "天", "气", "u", "caf", "##e", "e", "unused"]
ENTRIES = list(dict.fromkeys([*SPECIAL_TOKENS, *MARKS, *WORDS, *"<>[]/@aAeE1_-.,"]))
ID = {entry: i for i, entry in enumerate(ENTRIES)}
BERT = {"tokenizer_class": "BertTokenizer"}
# `<A>` and `<a>` are one token in lower-cased text.
FOUND_LOWER = [name for name in MARKS if name != "<a>"]
GENERAL = {"tokenizer_class": "PreTrainedTokenizerFast", **{
    f"{role}_token": name for role, name in zip(["pad", "unk", "cls", "sep", "mask"], SPECIAL_TOKENS, strict=True)
}}  # fmt: skip


def token(content, **flags):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False} | flags


def decoder(*names, **flags):
    return {str(ID[name]): token(name, **flags) for name in names}


def in_text(*names, normalized=True, special=False):
    """tokenizer.json of the vocabulary, with added tokens."""
    tokens = [
        {"id": ID[name], **token(name, normalized=normalized, special=special)} for name in names
    ]
    content = vocab_txt(ENTRIES).encode()
    engine = json.loads(WordPiece("x", content, True)._engine.to_str())
    return {**engine, "added_tokens": sorted(tokens, key=lambda t: t["id"])}


FOLDERS = {
    "additional": {"tokenizer_config_json": BERT | {"additional_special_tokens": MARKS}},
    "additional, of config.json's class": {
        "config_json": {"model_type": "bert", "tokenizer_class": "BertTokenizer"},
        "tokenizer_config_json": {"additional_special_tokens": MARKS[:5]},
    },
    "extra": {"tokenizer_config_json": BERT | {"extra_special_tokens": MARKS[:4], "additional_special_tokens": MARKS[5:]}},
    "extra by name": {"tokenizer_config_json": BERT | {"extra_special_tokens": {"user": "<user>"}, "own_token": "[E1]", "bos_token": "<a>"}},
    "objects": {"tokenizer_config_json": BERT | {"additional_special_tokens": [{"__type": "AddedToken", **token("<A>", normalized=True)}, "<user>"]}},
    "decoder": {"tokenizer_config_json": BERT | {"added_tokens_decoder": decoder(*MARKS, normalized=False, special=True)}},
    "decoder, found in lower case": {"tokenizer_config_json": BERT | {"added_tokens_decoder": decoder(*FOUND_LOWER, normalized=True, special=False)}},
    "decoder, whole words": {"tokenizer_config_json": BERT | {"added_tokens_decoder": decoder("user", "<a>", single_word=True, lstrip=True, rstrip=True)}},
    "decoder hides other files": {
        "tokenizer_config_json": BERT | {"added_tokens_decoder": decoder("<user>", special=True)},
        "special_tokens_map_json": {"additional_special_tokens": ["[E1]"]},
        "added_tokens_json": {"<a>": ID["<a>"]},
    },
    "added": {"added_tokens_json": {name: ID[name] for name in FOUND_LOWER}},
    "added, some special": {
        "tokenizer_config_json": BERT | {"additional_special_tokens": ["[E1]"]},
        "added_tokens_json": {name: ID[name] for name in ("<user>", "[E1]", "<A>")},
    },
    "map": {"special_tokens_map_json": {"additional_special_tokens": MARKS[:4], "eos_token": token("<A>", normalized=True)}},
    "map after additional": {
        "tokenizer_config_json": BERT | {"additional_special_tokens": ["<user>"]},
        "special_tokens_map_json": {"additional_special_tokens": ["[E1]"]},
    },
    "map and extra": {
        "tokenizer_config_json": BERT | {"extra_special_tokens": ["<user>"]},
        "special_tokens_map_json": {"extra_special_tokens": ["[E1]"]},
    },
    "tokenizer.json": {"tokenizer_json": in_text(*FOUND_LOWER), "tokenizer_config_json": BERT},
    "tokenizer.json, special": {"tokenizer_json": in_text(*MARKS, normalized=False, special=True), "tokenizer_config_json": BERT},
    "tokenizer.json, general": {"tokenizer_json": in_text(*FOUND_LOWER), "tokenizer_config_json": GENERAL},
    "tokenizer.json, general, and the decoder": {
        "tokenizer_json": in_text("<A>", "[E1]"),
        "tokenizer_config_json": GENERAL | {"added_tokens_decoder": decoder("<A>", "<user>", normalized=False, special=True)},
    },
    "tokenizer.json under the decoder": {
        "tokenizer_json": in_text("<A>", "[E1]"),
        "tokenizer_config_json": BERT | {"added_tokens_decoder": decoder("<user>", normalized=False, special=True)},
    },
    "split again": {"tokenizer_config_json": BERT | {
        "additional_special_tokens": ["<user>"], "split_special_tokens": True, "added_tokens_decoder": decoder("[E1]", normalized=True)}},
    "cased": {"tokenizer_config_json": BERT | {"do_lower_case": False, "additional_special_tokens": MARKS}},
    "new ones": {
        "tokenizer_config_json": BERT | {"additional_special_tokens": ["<new>", "<user>"]},
        "added_tokens_json": {"[a new one]": len(ENTRIES)},
    },
}  # fmt: skip


def folder_of(tmp_path, name):
    files = {"config_json": {"model_type": "bert"}, "vocab_txt": vocab_txt(ENTRIES)}
    return put(tmp_path / "theirs", **(files | FOLDERS[name]))


@cache
def drawn(count):
    """Texts of registered tokens, words and marks, with and without spaces between them."""
    chosen = random.Random(0)
    parts = [*MARKS, *MARKS, *(m.upper() for m in MARKS), *(m.lower() for m in MARKS)]
    parts += [
        "users",
        "USER",
        "<new>",
        "[a new one]",
        "café",
        "u\u0308",
        "\u3000",
        "\t",
        "\n",
        "\u200b",
        "\x07",
    ]
    parts += [entry.removeprefix("##") for entry in ENTRIES[len(SPECIAL_TOKENS) :]]
    texts = []
    for _ in range(count):
        picked = chosen.choices(parts, k=chosen.randrange(1, 9))
        texts.append("".join(part + chosen.choice(("", " ", "")) for part in picked))
    return texts


def their_ids(folder, texts):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return theirs(texts, add_special_tokens=False)["input_ids"]


def rows(tokenizer, texts):
    ids, offsets = tokenizer.encode_batch(texts)
    return [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)]


# The first is for each run of the tests.
COUNTS = [200, pytest.param(2000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", FOLDERS)
def test_registered_tokens_have_the_ids_of_auto_tokenizer_from_every_place(name, tmp_path, count):
    folder, texts = folder_of(tmp_path, name), drawn(count)
    assert rows(read_tokenizer_folder(folder), texts) == their_ids(folder, texts)


SHORT_RUN = ("decoder, whole words", "added, some special", "new ones")


@pytest.mark.parametrize(
    "name", [n if n in SHORT_RUN else pytest.param(n, marks=pytest.mark.slow) for n in FOLDERS]
)
def test_imported_and_exported_they_have_the_ids_of_the_source(name, tmp_path):
    folder, texts = folder_of(tmp_path, name), drawn(200 if name in SHORT_RUN else 2000)
    tokenizer, expected = read_tokenizer_folder(folder), their_ids(folder, texts)
    tokenizer.save(tmp_path / "run")
    loaded = load_tokenizer(tmp_path / "run")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert rows(loaded, texts) == expected
    check_export(loaded, "here")
    loaded.save(tmp_path / "exported")
    assert their_ids(tmp_path / "exported", texts) == expected
    assert read_tokenizer_folder(tmp_path / "exported").fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("settings", [
    {}, {"additional_special_tokens": ["<user>", "\u00e9 x"]},
    {"added_tokens_decoder": {"270": token("Return", lstrip=True, rstrip=True, normalized=False)}},
    {"additional_special_tokens": ["<new>"], "add_prefix_space": True},
    {"z_token": "<new>", "eos_token": "[a new one]", "split_special_tokens": True},
])  # fmt: skip
def test_registered_tokens_of_byte_level_bpe_have_the_ids_of_auto_tokenizer(tmp_path, settings):
    pieces = dict(json.loads(BYTE_BPE._files["vocab.json"]))
    for name in ("<user>", "\u00e9 x"):
        pieces[name] = len(pieces)
    for i in list(settings.get("added_tokens_decoder", {})):
        settings["added_tokens_decoder"] = {
            str(i): token(BYTE_BPE.pieces([int(i)])[0], lstrip=True, rstrip=True, normalized=False)
        }
    folder = put(
        tmp_path / "theirs",
        config_json={"model_type": "roberta"},
        vocab_json=pieces,
        merges_txt=BYTE_BPE._files["merges.txt"],
        tokenizer_config_json={"tokenizer_class": "RobertaTokenizer", **settings},
    )
    tokenizer = read_tokenizer_folder(folder)
    texts = [text.replace("the", "\u00e9 x") for text in drawn(200)]
    expected = their_ids(folder, texts)
    assert rows(tokenizer, texts) == expected
    tokenizer.save(tmp_path / "exported")
    check_export(tokenizer, "here")
    assert rows(load_tokenizer(tmp_path / "exported"), texts) == expected
    assert their_ids(tmp_path / "exported", texts) == expected


def test_two_tokens_that_are_one_in_normalized_text_are_refused(tmp_path):
    files = {"added_tokens_json": {"<A>": ID["<A>"], "<a>": ID["<a>"]}}
    folder = put(tmp_path, vocab_txt=vocab_txt(ENTRIES), **files)
    with pytest.raises(UserError, match="'<A>' and '<a>', both '<a>' in normalized text"):
        read_tokenizer_folder(folder)


@pytest.mark.parametrize("files,message", [
    ({"tokenizer_config_json": {"mask_token": "<user>"}}, r"tokenizer_config\.json: mask_token: found '<user>', expected '\[MASK\]'"),
    ({"special_tokens_map_json": {"unk_token": token("<a>")}}, r"special_tokens_map\.json: unk_token: found '<a>'"),
    ({"added_tokens_json": {"<user>": 2}}, r"added_tokens\.json: found the token '<user>' of id 2 added .* expected the id 6"),
    ({"added_tokens_json": {"<new>": 400}}, "the token '<new>' of id 400 added to a vocabulary of"),
    ({"tokenizer_config_json": {"added_tokens_decoder": {"6": {"content": "<user>", "lstrip": 1}}}}, "lstrip: found 1, expected true or false"),
    ({"tokenizer_config_json": {"added_tokens_decoder": {"6": 5}}}, "added_tokens_decoder: found 5, expected a token's text or object"),
    ({"tokenizer_config_json": {"additional_special_tokens": "<user>"}}, "special_tokens: found '<user>', expected a list"),
    ({"tokenizer_config_json": {"additional_special_tokens": [[1]]}}, r"special_tokens: found \[1\], expected a token"),
    ({"tokenizer_config_json": {"additional_special_tokens": ["two\nlines"]}}, r"the added token 'two\\nlines', expected one without white space"),
    ({"config_json": {"vocab_size": len(ENTRIES)}, "added_tokens_json": {"<new>": len(ENTRIES)}},
     r"'<new>' of id \d+ added to a vocabulary of \d+, expected none, for a model of \d+ ids"),
])  # fmt: skip
def test_tokens_that_the_vocabulary_cannot_have_are_refused_by_name(tmp_path, files, message):
    folder = put(tmp_path, vocab_txt=vocab_txt(ENTRIES), **files)
    with pytest.raises(UserError, match=message) as caught:
        read_tokenizer_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_saved_token_that_is_no_entry_is_refused(tmp_path):
    TRAINED["wordpiece"].save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    for content in ("<nowhere>", "[MASK]"):
        settings = json.loads(file.read_text()) | {"added_tokens_decoder": {"7": token(content)}}
        file.write_text(json.dumps(settings))
        with pytest.raises(
            UserError, match=f"the registered token '{content}'".replace("[", r"\[")
        ):
            load_tokenizer(tmp_path)


def test_the_tokens_of_a_text_are_kept_whole_in_a_real_folder(shared_data):
    folder = shared_data.parent / "cases" / "tokenizers" / "registered_tokens"
    tokenizer = read_tokenizer_folder(folder)
    text = "the <user> saw [E1]it[/e1], [unused1][unused2] <USER>"
    named = [token.content for token in tokenizer.registered]
    pieces = tokenizer.pieces(ids_of(tokenizer, text))
    assert [piece for piece in pieces if piece in named] == [
        "<user>", "[E1]", "[/e1]", "[unused1]", "[unused2]",
    ]  # fmt: skip
    assert ids_of(tokenizer, text) == their_ids(folder, [text])[0]


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe"])
def test_a_token_that_transformers_added_to_our_export_comes_back(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    ours = {**TRAINED, "byte_bpe": BYTE_BPE}[kind]
    ours.save(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    theirs.add_special_tokens({"additional_special_tokens": ["<new>"]})
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer = read_tokenizer_folder(tmp_path / "theirs")
    texts = ["the <new> fox", "jumps<new>over", "<NEW>"]
    assert tokenizer.vocab_size == ours.vocab_size + 1
    assert rows(tokenizer, texts) == theirs(texts, add_special_tokens=False)["input_ids"]


def test_accents_in_registered_tokens_do_not_count_as_lost(tmp_path):
    settings = BERT | {"additional_special_tokens": ["@Ü"]}
    put(tmp_path, vocab_txt=vocab_txt(ENTRIES), tokenizer_config_json=settings)
    tokenizer = read_tokenizer_folder(tmp_path)
    assert tokenizer.encode_counted(["@Ü e", "x@Üé", "Ü"])[2].stripped == 2


def test_words_that_are_added_leave_registered_tokens_whole(tmp_path):
    settings = BERT | {"additional_special_tokens": ["<user>"]}
    folder = put(tmp_path / "theirs", vocab_txt=vocab_txt(ENTRIES), tokenizer_config_json=settings)
    read_tokenizer_folder(folder).save(tmp_path / "run")
    grown = extend_tokenizer(tmp_path / "run", ["newest"], "words")
    assert grown.pieces(ids_of(grown, "newest<user>")) == ["newest", "<user>"]
