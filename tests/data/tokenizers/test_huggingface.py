import io
import json

import pytest
import sentencepiece as spm
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.sentencepiece import SentencePiece
from bertjax.data.tokenizers.sentencepiece_model import read_model, with_exact_scores
from bertjax.data.tokenizers.tokenizer import load_tokenizer
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from bertjax.errors import UserError
from tests.data.tokenizers.declared.folders import engine_of
from tests.data.tokenizers.test_byte_bpe import TRAINED as BYTE_BPE
from tests.data.tokenizers.test_tokenizer import TEXTS, TRAINED, ids_of

ENTRIES = [*SPECIAL_TOKENS, "a", "the", "##the", "The", "café", "cafe"]
ROBERTA_VOCAB, ROBERTA_MERGES = BYTE_BPE._files["vocab.json"], BYTE_BPE._files["merges.txt"]


def put(folder, **files):
    """Write files by name, with `_` for the dot; content is text, bytes, or a value for JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        content = content.encode() if isinstance(content, str) else content
        stem, _, ending = name.rpartition("_")
        (folder / f"{stem}.{ending}").write_bytes(content)
    return folder


def vocab_txt(entries=ENTRIES):
    return "".join(f"{entry}\n" for entry in entries)


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    assert read_tokenizer_folder(tmp_path) is None
    assert read_tokenizer_folder(put(tmp_path, config_json={})) is None


@pytest.mark.parametrize("settings,lowercase,expected", [
    (None, None, True), (None, False, False), (None, True, True), ({}, None, True), ({}, False, False),
    ({"do_lower_case": False}, None, False), ({"do_lower_case": False}, True, False), ({"do_lower_case": True}, False, True),
    ({"do_lower_case": True, "strip_accents": True}, None, True), ({"do_lower_case": False, "strip_accents": False}, None, False),
])  # fmt: skip
def test_vocab_txt_is_lower_cased_as_the_folder_says_or_else_as_given(
    tmp_path, settings, lowercase, expected
):
    put(
        tmp_path,
        vocab_txt=vocab_txt(),
        **({} if settings is None else {"tokenizer_config_json": settings}),
    )
    tokenizer = read_tokenizer_folder(tmp_path, lowercase)
    assert (tokenizer.kind, tokenizer.lowercase) == ("wordpiece", expected)
    assert tokenizer.decode(ids_of(tokenizer, "The café")) == (
        "the cafe" if expected else "The café"
    )


def test_where_only_tokenizer_json_says_cased_the_user_must_decide(tmp_path):
    engine = {
        "normalizer": {"type": "BertNormalizer", "lowercase": False, "handle_chinese_chars": True}
    }
    folder = put(tmp_path, vocab_txt=vocab_txt(), tokenizer_json=engine)
    for lowercase in (True, False):
        assert read_tokenizer_folder(folder, lowercase).lowercase is lowercase
    with pytest.raises(
        UserError, match="lowercase: found False, expected True, or --lowercase to say which"
    ):
        read_tokenizer_folder(folder)


@pytest.mark.parametrize("files,message", [
    ({"tokenizer_config_json": {"tokenizer_class": "BertJapaneseTokenizer"}}, "tokenizer_class: found 'BertJapaneseTokenizer'"),
    ({"tokenizer_config_json": {"tokenizer_class": ["x"]}}, "tokenizer_class: found"),
    ({"tokenizer_json": {"model": {"vocab": {"[PAD]": 1, "[UNK]": 0}}}}, "found another vocabulary than that of the file beside it"),
])  # fmt: skip
def test_a_tokenizer_that_splits_text_otherwise_is_refused(tmp_path, files, message):
    with pytest.raises(UserError, match=message):
        read_tokenizer_folder(put(tmp_path, vocab_txt=vocab_txt(), **files))


@pytest.mark.parametrize("settings,message", [
    ({"strip_accents": "no"}, r"tokenizer_config\.json: strip_accents: found 'no', expected true or false"),
    ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars: found False, expected true"),
    ({"do_lower_case": "yes"}, "do_lower_case: found 'yes', expected true or false"),
    ({"do_basic_tokenize": False}, "do_basic_tokenize: found False, expected true"),
    ({"never_split": ["x"]}, "never_split: found"),
    ({"added_tokens_decoder": {"12": {"content": "<x>"}}}, "the token '<x>' of id 12 added to a vocabulary of 11"),
    ({"added_tokens_decoder": {"0": {"content": "<x>"}}}, "the token '<x>' of id 0 added"),
    ({"added_tokens_decoder": {"9" * 9999: {"content": "<x>"}}}, "the token '<x>' of id 999"),
    ({"added_tokens_decoder": []}, None), ({"added_tokens_decoder": [1]}, "added_tokens_decoder: found"),
    ({"added_tokens_decoder": {"0": {"content": "[PAD]"}}}, None),
    ([], "found a list, expected a JSON object"),
    ("{", "cannot be read as JSON"),
    ({"kind": "wordpiece"}, "found no tokenizer: no do_lower_case"),
])  # fmt: skip
def test_settings_that_are_not_berts_are_refused(tmp_path, settings, message):
    put(tmp_path, vocab_txt=vocab_txt(), tokenizer_config_json=settings)
    if message is None:
        assert read_tokenizer_folder(tmp_path).vocab_size == len(ENTRIES)
        return
    with pytest.raises(UserError, match=message):
        read_tokenizer_folder(tmp_path)


@pytest.mark.parametrize(
    "added,message",
    [({"<x>": 12}, "the token '<x>'"), ({"[CLS]": 2}, None), ({"<x>": "1"}, "the token '<x>'")],
)
def test_tokens_of_added_tokens_json_are_refused_unless_their_ids_are_the_next_ones(
    tmp_path, added, message
):
    put(tmp_path, vocab_txt=vocab_txt(), added_tokens_json=added)
    if message is None:
        assert read_tokenizer_folder(tmp_path).cls_id == 2
        return
    with pytest.raises(UserError, match=message):
        read_tokenizer_folder(tmp_path)


@pytest.mark.parametrize("kind", [*TRAINED, "byte_bpe"])
def test_a_folder_that_we_saved_loads_unchanged(tmp_path, kind):
    tokenizer = {**TRAINED, "byte_bpe": BYTE_BPE}[kind]
    tokenizer.save(tmp_path)
    assert read_tokenizer_folder(tmp_path).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    "settings,prefix",
    [({}, False), ({"add_prefix_space": True}, True), ({"add_prefix_space": False}, False)],
)
def test_vocab_json_and_merges_make_robertas_tokenizer(tmp_path, settings, prefix):
    put(
        tmp_path,
        vocab_json=ROBERTA_VOCAB,
        merges_txt=ROBERTA_MERGES,
        tokenizer_config_json=settings,
    )
    tokenizer = read_tokenizer_folder(tmp_path)
    assert (tokenizer.kind, tokenizer.lowercase) == ("byte_bpe", False)
    assert ids_of(tokenizer, "the fox") == ids_of(BYTE_BPE, " the fox" if prefix else "the fox")
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"merges\.txt: cannot be read as merges"):
        read_tokenizer_folder(tmp_path)


def test_tokenizer_json_alone_gives_its_vocabulary(tmp_path):
    word_piece = read_tokenizer_folder(
        put(tmp_path / "a", tokenizer_json=engine_of(TRAINED["wordpiece"], tmp_path / "ours"))
    )
    assert word_piece.fingerprint == TRAINED["wordpiece"].fingerprint
    engine = engine_of(BYTE_BPE, tmp_path / "ours")
    assert (
        read_tokenizer_folder(put(tmp_path / "b", tokenizer_json=engine)).fingerprint
        == BYTE_BPE.fingerprint
    )
    # As older files have them.
    engine["model"]["merges"] = [" ".join(pair) for pair in engine["model"]["merges"]]
    assert (
        read_tokenizer_folder(put(tmp_path / "c", tokenizer_json=engine)).fingerprint
        == BYTE_BPE.fingerprint
    )


def changed(tree, value, *keys):
    for key in keys[:-1]:
        tree = tree[key]
    tree[keys[-1]] = value


@pytest.mark.parametrize("kind,keys,value,message", [
    ("wordpiece", ("model", "type"), "WordLevel", "found a model of type 'WordLevel', expected one of WordPiece, BPE, Unigram"),
    ("wordpiece", ("model", "type"), "Unigram", "vocab: found dict, expected a list of entries with their scores"),
    ("wordpiece", ("model",), [1], "model: found list, expected an object"),
    ("wordpiece", ("model", "vocab"), [["a", 0]], "found a vocabulary of type list"),
    ("wordpiece", ("model", "vocab"), {"a": 0, "b": 2}, "found 2 entries with ids that are not 0 to 1"),
    ("wordpiece", ("model", "vocab"), {"a": 0}, "the token '\\[PAD\\]' of id 0 added to 1 entries"),
    ("wordpiece", ("normalizer", "strip_accents"), 0, "cannot be read by the package tokenizers"),
    ("wordpiece", ("added_tokens",), [{"content": "x", "id": 999}], "the token 'x' of id 999 added"),
    ("wordpiece", ("added_tokens",), {"a": 1}, "added_tokens: found"),
    ("byte_bpe", ("pre_tokenizer", "type"), "Metaspace", "tokenizer\\.json: cannot be read by the package tokenizers"),
    ("byte_bpe", ("model", "merges"), {"a": 1}, "merges: found dict"),
    ("byte_bpe", ("model", "merges"), ["a"], "merges: found \\['a'\\], expected two pieces"),
    ("byte_bpe", ("model", "merges"), [["a", 1]], "expected two pieces"),
    ("byte_bpe", ("model", "merges"), [["a", "nowhere"]], "cannot be read by the package tokenizers"),
])  # fmt: skip
def test_a_broken_or_unknown_tokenizer_json_is_an_error_of_one_line_that_names_it(
    tmp_path, kind, keys, value, message
):
    engine = engine_of({**TRAINED, "byte_bpe": BYTE_BPE}[kind], tmp_path / "ours")
    changed(engine, value, *keys)
    with pytest.raises(UserError, match=message) as caught:
        read_tokenizer_folder(put(tmp_path / "x", tokenizer_json=engine))
    assert "tokenizer.json" in str(caught.value) or str(tmp_path / "x") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def albert(tmp_path_factory):
    """A folder with only a model that was trained with ALBERT's options."""
    model = io.BytesIO()
    numbers = [
        'it costs 1,000 and 2,000, or 3, and 5,5, (or "so")',
        "Ünïted 10, 20, 30, states",
        "10, 20, 30, 20, 10, 30, 10,",
    ] * 300
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, *numbers]), model_writer=model, vocab_size=220, pad_id=0, unk_id=1, eos_id=-1,
        bos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"], user_defined_symbols=list('()".-'), minloglevel=2,
        hard_vocab_limit=False, split_by_number=False, split_by_unicode_script=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("albert")
    return put(folder, spiece_model=with_exact_scores(model.getvalue()))


def test_spiece_model_is_alberts_with_its_special_tokens(albert, tmp_path):
    tokenizer = read_tokenizer_folder(albert)
    named = [
        tokenizer.pad_id,
        tokenizer.unk_id,
        tokenizer.cls_id,
        tokenizer.sep_id,
        tokenizer.mask_id,
    ]
    assert named == [0, 1, 2, 3, 4]
    assert tokenizer.pieces(named) == ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    assert (tokenizer.kind, tokenizer.lowercase) == ("unigram", True)
    assert tokenizer.decode(ids_of(tokenizer, "The  DÓG ``so''")) == 'the dog "so"'
    assert tokenizer.encode_with_masks("the [MASK] dog").tolist().count(4) == 1
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert ids_of(loaded, "The  DÓG ``so''") == ids_of(tokenizer, "The  DÓG ``so''")
    content = (albert / "spiece.model").read_bytes()
    assert SentencePiece("x", content, "unigram", True).fingerprint != tokenizer.fingerprint
    cased = read_tokenizer_folder(albert, False)
    assert cased.decode(ids_of(cased, "Thé")) == "The"
    assert cased.fingerprint != tokenizer.fingerprint


def test_tokens_of_albert_begin_in_the_text_before_it_was_cleaned(albert):
    tokenizer = read_tokenizer_folder(albert)
    text = "``A'' DÓ\u0301G ﬁ the"
    begins = tokenizer.encode_begins([text, ""])
    assert len(begins[0]) == len(ids_of(tokenizer, text))
    assert begins[1] == []
    assert begins[0] == sorted(begins[0])
    late = "``````the dog"
    assert max(tokenizer.encode_begins([late])[0]) >= late.index("dog")


def test_albert_separates_the_comma_from_a_number(albert):
    tokenizer, content = read_tokenizer_folder(albert), (albert / "spiece.model").read_bytes()
    as_it_is = spm.SentencePieceProcessor(model_proto=content).encode(
        "it costs 10, 20, 30,", out_type=str
    )
    for pieces, some in (
        (as_it_is, True),
        (tokenizer.pieces(ids_of(tokenizer, "it costs 10, 20, 30,")), False),
    ):
        assert some == any(len(p) > 1 and p[-1] == "," and p[-2].isdigit() for p in pieces)


@pytest.mark.parametrize("settings,message", [
    ({"keep_accents": True}, "keep_accents: found True, expected false"),
    ({"tokenizer_class": "T5Tokenizer"}, "tokenizer_class: found 'T5Tokenizer', expected one of AlbertTokenizer"),
])  # fmt: skip
def test_other_uses_of_a_sentencepiece_model_are_refused(albert, tmp_path, settings, message):
    put(
        tmp_path,
        spiece_model=(albert / "spiece.model").read_bytes(),
        tokenizer_config_json=settings,
    )
    with pytest.raises(UserError, match=message):
        read_tokenizer_folder(tmp_path)
    with pytest.raises(UserError, match=r"spiece\.model: found no SentencePiece model"):
        read_tokenizer_folder(put(tmp_path / "bad", spiece_model=b"\x0a\xff\xff"))


WORDS = st.sampled_from(
    [
        "The",
        " dog",
        " cost",
        "1,000,",
        " 3, ",
        "``so''",
        "(or)",
        "É",
        "e\u0301",
        "  ",
        " Ünïcödé",
        "天气",
        "\t",
        "ﬁ",
        "☃",
    ]
)


@pytest.fixture(scope="module")
def theirs(albert, tmp_path_factory):
    """AlbertTokenizer of the model's own pieces, and AutoTokenizer of the folder that we save.

    The first is given what it would read from spiece.model with a newer protobuf. As in the
    conversion of `transformers`, a number with a comma scores less by 100.
    """
    transformers = pytest.importorskip("transformers")
    from transformers.convert_slow_tokenizer import check_number_comma

    model = read_model((albert / "spiece.model").read_bytes())
    scored = [
        (p.name, p.score if check_number_comma(p.name) else p.score - 100) for p in model.pieces
    ]
    folder = tmp_path_factory.mktemp("saved")
    read_tokenizer_folder(albert).save(folder)
    return [
        transformers.AlbertTokenizer(vocab=scored, _spm_precompiled_charsmap=model.charsmap),
        transformers.AutoTokenizer.from_pretrained(folder),
    ]


@given(
    parts=st.lists(
        WORDS
        | st.text(
            st.characters(exclude_categories=("Cs", "Mn", "Mc", "Me", "Cf", "Sk", "Lm")), max_size=5
        ),
        max_size=9,
    )
)
@example(parts=["The cost is 1,000, or ``so''"])
@example(parts=["\x85"])
@example(parts=["``so''"])
def test_ids_of_albert_are_those_of_transformers(albert, theirs, parts):
    text = "".join(parts).replace(
        "[", "("
    )  # Unigram there takes text that spells a special token for it
    expected = ids_of(read_tokenizer_folder(albert), text)
    for other in theirs:
        assert (
            other(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            == expected
        )
