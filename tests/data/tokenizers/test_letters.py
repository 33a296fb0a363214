import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.letters import Letters
from bertjax.data.tokenizers.sentencepiece import letter_cleaning
from bertjax.data.tokenizers.tokenizer import (
    is_opened_from,
    load_tokenizer,
    open_vocabulary,
    train_tokenizer,
)
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError

transformers = pytest.importorskip("transformers")

WORDS = ["में", "ガ", "Tiếng", "Việt", "Café", "CAFÉ", "cafe", "ÜBER", "İ", "한국", "และ", "e\u0301"]
TEXTS = [" ".join(WORDS), "Die Bücher über Köln", "hôm nay trời đẹp", "में यह किताब ガギグ 한글"] * 20
SETTINGS = [(lower, strip) for lower in (True, False) for strip in (None, True, False)]
# Without characters that join the one before them: a converted model loses those that do not
# compose (a known difference in `test_parity.py`).
JOINING = "".join(map(chr, (*range(0x1F3FB, 0x1F400), 0xFF9E, 0xFF9F)))
SEPARATE = st.characters(
    exclude_categories=("Cs", "Cn", "Co", "Mn", "Mc", "Me", "Cf"), exclude_characters=JOINING
)
PARTS = st.sampled_from([*WORDS, " ", "a", "z", "Ω", "天"]) | st.text(SEPARATE, max_size=4)
TEXT = st.lists(PARTS, max_size=10).map("".join)


def ids_of(tokenizer, text):
    return tokenizer.encode_batch([text])[0].tolist()


def their_ids(theirs, text):
    return theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Tokenizers by (kind, lowercase, strip_accents), each with that of `transformers`."""
    pairs = {}
    for kind in ("wordpiece", "unigram", "bpe"):
        for lower, strip in SETTINGS:
            config = TokenizerConfig(
                kind=kind, vocab_size=300, lowercase=lower, strip_accents=strip
            )
            folder = tmp_path_factory.mktemp("tokenizer")
            ours = train_tokenizer(config, TEXTS)
            ours.save(folder)
            pairs[kind, lower, strip] = ours, transformers.AutoTokenizer.from_pretrained(folder)
            loaded = load_tokenizer(folder)
            assert loaded.fingerprint == ours.fingerprint
            assert loaded.strip_accents == ours.strip_accents
    return pairs


@pytest.mark.parametrize("lower,strip", SETTINGS)
@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe"])
@given(text=TEXT)
@example(text=" ".join(WORDS))
def test_auto_tokenizer_gives_the_ids_under_each_treatment_of_letters(
    trained, kind, lower, strip, text
):
    ours, theirs = trained[kind, lower, strip]
    text = text.replace("[", "(").replace("<", "(")  # spells no special token
    assert their_ids(theirs, text) == ids_of(ours, text)


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe"])
@given(text=st.text(st.sampled_from("aE\u0301\u0308\u0947é天 "), max_size=8))
def test_marks_that_are_stripped_are_so_in_any_order(trained, kind, text):
    ours, theirs = trained[kind, True, True]
    assert their_ids(theirs, text) == ids_of(ours, text)


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe"])
def test_letters_are_treated_as_the_settings_say(trained, kind):
    for lower, strip in SETTINGS:
        ours, _ = trained[kind, lower, strip]
        strips = strip if strip is not None else kind == "wordpiece" and lower
        assert (ours.lowercase, ours.strip_accents) == (lower, strips)
        assert (ids_of(ours, "Café") == ids_of(ours, "café")) == lower
        assert (ids_of(ours, "Café") == ids_of(ours, "Cafe")) == strips
        decoded = ours.decode(ids_of(ours, "में ガ")).replace("[UNK]", "?")
        assert decoded == ("म カ" if strips else "में ガ")


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_tokens_begin_where_their_letters_are_in_the_text(trained, kind):
    ours, _ = trained[kind, True, True]
    text = "Café e\u0301 Việt"
    (begins,) = ours.encode_begins([text])
    pieces = ours.pieces(ids_of(ours, text))
    assert len(begins) == len(pieces)
    for begin, piece in zip(begins, pieces, strict=True):
        letters = piece.removeprefix("▁")
        if letters:
            assert letters[0] == text[begin:].lstrip()[0].translate(Letters(True, True))


def test_the_fingerprint_is_that_of_before_unless_the_setting_changes_the_ids(trained):
    prints = {key: ours.fingerprint for key, (ours, _) in trained.items()}
    content = trained["wordpiece", True, None][0]._content
    for lower in (True, False):
        tokenizers = [WordPiece("vocab.txt", content, lower, strip) for strip in (None, lower)]
        assert tokenizers[0].fingerprint == tokenizers[1].fingerprint
        other = WordPiece("vocab.txt", content, lower, not lower)
        assert other.fingerprint != tokenizers[0].fingerprint
    assert prints["unigram", True, None] == prints["unigram", True, False]
    assert prints["unigram", True, None] != prints["unigram", True, True]


@pytest.mark.parametrize("made_for", [None, "BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer",
                                      "PreTrainedTokenizerFast"])  # fmt: skip
@pytest.mark.parametrize("engine", [None, (True, None), (True, False), (False, True)])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("strip", ["left out", None, True, False])
def test_a_folder_of_transformers_is_read_as_auto_tokenizer_reads_it(
    tmp_path, made_for, engine, lower, strip
):
    if engine is None and made_for == "PreTrainedTokenizerFast":
        return  # it reads tokenizer.json alone
    entries = [*SPECIAL_TOKENS, "cafe", "café", "Cafe", "Café", "म", "में"]
    ours = WordPiece("vocab.txt", "".join(f"{e}\n" for e in entries).encode(), True)
    ours.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    file.unlink()
    if engine is not None:
        content["normalizer"] |= {"lowercase": engine[0], "strip_accents": engine[1]}
        file.write_text(json.dumps(content))
    settings = {"do_lower_case": lower}
    if strip != "left out":
        settings["strip_accents"] = strip
    if made_for:
        settings["tokenizer_class"] = made_for
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    read = read_tokenizer_folder(tmp_path)
    for text in ("Café cafe CAFÉ", "में"):
        assert ids_of(read, text) == their_ids(theirs, text)
    # What is exported again is the same.
    read.save(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert their_ids(again, "Café में") == ids_of(read, "Café में")


@pytest.mark.parametrize("engine", [(True, None), (True, False), (True, True)])
def test_a_tokenizer_json_alone_says_whether_accents_are_stripped(tmp_path, engine):
    entries = [*SPECIAL_TOKENS, "cafe", "café"]
    ours = WordPiece("vocab.txt", "".join(f"{e}\n" for e in entries).encode(), True)
    ours.save(tmp_path / "ours")
    content = json.loads((tmp_path / "ours" / "tokenizer.json").read_text())
    content["normalizer"] |= {"lowercase": engine[0], "strip_accents": engine[1]}
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(content))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(file))
    assert their_ids(theirs, "Café") == ids_of(read_tokenizer_folder(tmp_path), "Café")


def test_a_model_that_keeps_case_is_given_lower_case_where_that_is_asked_for(trained, tmp_path):
    content = trained["unigram", False, None][0]._content
    path = tmp_path / "cased.model"
    path.write_bytes(content)
    lower = open_vocabulary(TokenizerConfig(kind="unigram", vocab_file=str(path)))
    assert ids_of(lower, "CAFÉ ÜBER") == ids_of(lower, "café über")
    cased = TokenizerConfig(kind="unigram", vocab_file=str(path), lowercase=False)
    assert open_vocabulary(cased).fingerprint == trained["unigram", False, None][0].fingerprint
    lower.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in TEXTS[:4]:
        assert their_ids(theirs, text) == ids_of(lower, text)
    assert load_tokenizer(tmp_path / "saved").fingerprint == lower.fingerprint


def test_a_model_that_folds_case_cannot_keep_it(trained, tmp_path):
    path = tmp_path / "folding.model"
    path.write_bytes(trained["unigram", True, None][0]._content)
    folding = TokenizerConfig(kind="unigram", vocab_file=str(path), lowercase=True)
    assert letter_cleaning(path, path.read_bytes(), folding) == ""
    with pytest.raises(
        UserError, match=r"tokenizer\.lowercase: found False, expected True, for .*fold"
    ):
        open_vocabulary(TokenizerConfig(kind="unigram", vocab_file=str(path), lowercase=False))


@pytest.mark.parametrize("folds", [True, False])
@pytest.mark.parametrize("lowercase", [True, False])
def test_a_folder_of_before_still_counts_as_made_from_its_model(
    trained, tmp_path, folds, lowercase
):
    """Earlier versions did nothing to letters, whatever the model and the setting were."""
    content = trained["unigram", folds, None][0]._content
    path = tmp_path / "a.model"
    path.write_bytes(content)
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "spiece.model").write_bytes(content)
    settings = {"kind": "unigram", "do_lower_case": lowercase, "vocab_file": "spiece.model"}
    (tmp_path / "earlier" / "tokenizer_config.json").write_text(json.dumps(settings))
    earlier = load_tokenizer(tmp_path / "earlier")
    config = TokenizerConfig(kind="unigram", vocab_file=str(path), lowercase=lowercase)
    assert is_opened_from(earlier.fingerprint, config)
    path.write_bytes(trained["unigram", not folds, None][0]._content)
    if not (lowercase is False and not folds):
        assert not is_opened_from(earlier.fingerprint, config)


def test_a_setting_that_a_saved_folder_contradicts_is_refused(trained, tmp_path):
    trained["wordpiece", True, None][0].save(tmp_path)
    with pytest.raises(
        UserError, match=r"tokenizer\.strip_accents: found False, expected True, as"
    ):
        open_vocabulary(TokenizerConfig(vocab_file=str(tmp_path), strip_accents=False))
    for same in (None, True):
        open_vocabulary(TokenizerConfig(vocab_file=str(tmp_path), strip_accents=same))


def test_byte_level_bpe_strips_nothing():
    config = TokenizerConfig(kind="byte_bpe", vocab_size=300, lowercase=False, strip_accents=True)
    with pytest.raises(
        UserError, match=r"tokenizer\.strip_accents: found True, expected False, for"
    ):
        train_tokenizer(config, TEXTS)
